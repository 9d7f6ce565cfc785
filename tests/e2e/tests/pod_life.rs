//! The life of pods on one node, with real containers and kubectl: what the conformance tests of `test/e2e/common/node`
//! and `test/e2e/node` ask for, grouped so that each node is started once.
//!
//! The files below are groups; each test starts a host of its own. Nothing here is timed.

#[path = "pod_life/endings.rs"]
mod endings;
#[path = "pod_life/environment.rs"]
mod environment;
#[path = "pod_life/hooks.rs"]
mod hooks;
#[path = "pod_life/images.rs"]
mod images;
#[path = "pod_life/objects.rs"]
mod objects;
#[path = "pod_life/probes.rs"]
mod probes;
#[path = "pod_life/resize.rs"]
mod resize;
#[path = "pod_life/security.rs"]
mod security;
#[path = "pod_life/static_pods.rs"]
mod static_pods;
#[path = "pod_life/taints.rs"]
mod taints;
