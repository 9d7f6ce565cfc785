//! The messages of the kubelet's `dra/v1`, `deviceplugin/v1beta1` and `podresources/v1` protocols.
//!
//! Invariant: names are the protocols', and a field keeps its number for ever.

mod device_plugin;
mod dra;
mod pod_resources;

pub use device_plugin::*;
pub use dra::*;
pub use pod_resources::*;
