//! The CSI drivers that are registered on this node.
//!
//! Invariant: a driver is found here exactly while its registration stands.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kedge_csi::{CsiError, Driver, NodeCapabilities};
use parking_lot::RwLock;
use tokio::sync::OnceCell;

/// Upstream's deadline of a call.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// A registered driver.
pub(crate) struct Registered {
    pub(crate) driver: Driver,
    capabilities: OnceCell<NodeCapabilities>,
}

impl Registered {
    /// What its node service can do; asked once for each registration.
    pub(crate) async fn capabilities(&self) -> Result<NodeCapabilities, CsiError> {
        self.capabilities.get_or_try_init(|| self.driver.capabilities()).await.copied()
    }
}

/// By name.
#[derive(Default)]
pub(crate) struct Drivers {
    drivers: RwLock<BTreeMap<String, Arc<Registered>>>,
}

impl Drivers {
    pub(crate) fn insert(&self, name: &str, socket: &Path) -> Arc<Registered> {
        let driver = Driver::new(socket, CALL_DEADLINE);
        let registered = Arc::new(Registered { driver, capabilities: OnceCell::new() });
        self.drivers.write().insert(name.to_owned(), registered.clone());
        registered
    }

    pub(crate) fn remove(&self, name: &str) {
        self.drivers.write().remove(name);
    }

    /// The driver, or upstream's words for that it is not there.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Registered>, String> {
        let found = self.drivers.read().get(name).cloned();
        found.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }
}
