//! Phases of a cluster's life: what must be true before it starts, what it finds and leaves in its data directory, the
//! images it is made of, the demo, and how it is taken down.
//!
//! A phase does one thing, says what it did, and can be done again. The order of phases is the supervisor's.

mod addresses;
mod demo;
mod images;
mod layout;
mod lock;
mod preflight;
mod process;
mod run_file;
mod teardown;

pub use addresses::{AddressError, find_node_ip, hostname};
pub use demo::{DEMO_NODE_PORT, DemoError, DemoState, apply_demo, demo_state};
pub use images::{ImageError, Images, ensure_images};
pub use layout::Layout;
pub use lock::{InstanceLock, LockError};
pub use preflight::{Finding, Needs, Severity, missing_programs, preflight};
pub use process::ProcessMark;
pub use run_file::{RunFile, RunFileError};
pub use teardown::{TeardownError, end_process, remove_sandboxes, unmount_below};
