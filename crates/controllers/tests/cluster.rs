//! The controllers against the real API server over a store in memory, with a node that only pretends to run pods.

#![allow(clippy::unwrap_used)]

mod cluster {
    mod autoscaling;
    mod batch;
    mod certificates;
    mod cleaning;
    mod garbage;
    mod harness;
    mod metrics;
    mod namespaces;
    mod nodes;
    mod poison;
    mod policies;
    mod services;
    mod stateful;
    mod storage;
    mod tokens;
    mod workloads;
}
