//! The messages of CSI v1 (`csi.v1`) and of plug-in registration (`pluginregistration`) that a node needs.
//!
//! Not the whole protocol: snapshots, groups and listings are left out, and unknown fields are skipped as protobuf says.
//! Source: the CSI specification, version 1.11, and the kubelet's `pluginregistration/v1` API. Invariant: names are the
//! protocol's, and a field keeps its number for ever.

mod controller;
mod identity;
mod node;
mod registration;
mod volume;

pub use controller::*;
pub use identity::*;
pub use node::*;
pub use registration::*;
pub use volume::*;
