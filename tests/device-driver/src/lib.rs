//! A small driver of dynamic resource allocation and a small device plug-in, for tests; and a question that monitoring
//! agents ask.
//!
//! They serve in the process of the test. Preparing a claim writes a CDI spec that gives containers a variable and a device
//! node, as real drivers do. Invariant: what was made outside the test's directories is taken away when the driver is
//! dropped.

mod driver;
mod plugin;
mod pod_resources;
mod serve;

pub use driver::TestDriver;
pub use plugin::TestPlugin;
pub use pod_resources::pod_resources;
