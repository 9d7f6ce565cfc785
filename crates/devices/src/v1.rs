//! The messages of the kubelet's `dra/v1` and `deviceplugin/v1beta1` protocols.
//!
//! Invariant: names are the protocols', and a field keeps its number for ever.

mod device_plugin;
mod dra;

pub use device_plugin::*;
pub use dra::*;
