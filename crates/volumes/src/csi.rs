//! CSI: drivers that register themselves, and the volumes that they give.
//!
//! What a driver did is written beside its volumes before it is asked to do it (`record.rs`), so that a node agent that was
//! killed at any point knows what to undo. Invariant: a volume is unstaged only when no pod's record names it, and calls for
//! one volume never overlap.

pub(crate) mod attach;
pub(crate) mod block;
pub(crate) mod driver_object;
pub(crate) mod drivers;
pub(crate) mod expand;
pub(crate) mod mount;
pub(crate) mod node_info;
pub(crate) mod plugin_watch;
pub(crate) mod record;
pub(crate) mod source;
pub(crate) mod tear_down;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;

use self::driver_object::DriverObjects;
use self::drivers::Drivers;
use self::node_info::NodeInfo;

/// The plug-in's name in paths and volume names.
pub(crate) const PLUGIN: &str = "kubernetes.io/csi";

/// Upstream's prefix of this plug-in's messages.
pub(crate) fn said(message: impl std::fmt::Display) -> String {
    format!("{PLUGIN}: {message}")
}

/// What is known about CSI on this node.
pub(crate) struct Csi {
    pub(crate) drivers: Drivers,
    pub(crate) objects: DriverObjects,
    pub(crate) node_info: NodeInfo,
    pub(crate) locks: VolumeLocks,
    /// Places that this process has had staged; others are asked for again, which drivers must allow.
    pub(crate) staged: Mutex<HashSet<PathBuf>>,
}

impl Csi {
    pub(crate) fn new(client: Client, node_name: &str) -> Self {
        Self {
            drivers: Drivers::default(),
            objects: DriverObjects::new(client.clone()),
            node_info: NodeInfo::new(client, node_name),
            locks: VolumeLocks::default(),
            staged: Mutex::default(),
        }
    }
}

type VolumeLock = Arc<tokio::sync::Mutex<()>>;

/// One lock for each volume that is being worked on.
#[derive(Default)]
pub(crate) struct VolumeLocks {
    /// By driver and handle.
    locks: Mutex<HashMap<(String, String), VolumeLock>>,
}

impl VolumeLocks {
    /// Waits until nobody else works on this driver's volume.
    pub(crate) async fn lock(&self, driver: &str, handle: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            // Those that nobody holds or waits for.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry((driver.to_owned(), handle.to_owned())).or_default().clone()
        };
        lock.lock_owned().await
    }
}
