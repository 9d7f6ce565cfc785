//! Phases of bringing a cluster up and taking it down
