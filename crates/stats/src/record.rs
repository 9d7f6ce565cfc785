//! One control group with everything it used and whose it is, for documents that show groups one by one.
//!
//! Data only.

use jiff::Timestamp;

use crate::cgroup::CgroupUsage;
use crate::summary::{FsStats, InterfaceStats};

/// What a control group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The machine.
    Machine,
    /// All pods, or all of one quality of service.
    Class,
    /// A pod.
    Pod,
    /// A pod's sandbox.
    Sandbox,
    /// A container.
    Container,
}

/// A control group.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupRecord {
    /// Its path, from the root.
    pub id: String,
    /// What it is for.
    pub role: Role,
    /// The namespace of its pod; empty where it has none.
    pub namespace: String,
    /// The name of its pod.
    pub pod: String,
    /// The name of its container.
    pub container: String,
    /// The image of its container.
    pub image: String,
    /// The runtime's id of its container or sandbox.
    pub name: String,
    /// When that was made.
    pub created_at: Timestamp,
    /// When it was measured.
    pub time: Timestamp,
    /// What it used.
    pub usage: CgroupUsage,
    /// Network interfaces: of the machine, and of sandboxes with a network of their own.
    pub interfaces: Vec<InterfaceStats>,
    /// The writable layer, or for the machine its file system.
    pub fs: Option<FsStats>,
}
