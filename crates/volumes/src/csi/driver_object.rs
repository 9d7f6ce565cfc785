//! CSIDriver objects: what the cluster knows about a driver.
//!
//! Fetched one by one and kept for a short time. Invariant: while the API server is away, the last known state is used, and
//! a driver without an object has upstream's defaults.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, TokenRequest};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

const KEEP: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What matters about a driver here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DriverFacts {
    /// Whether there is an object.
    pub(crate) known: bool,
    pub(crate) attach_required: bool,
    pub(crate) pod_info: bool,
    pub(crate) fs_group_policy: String,
    pub(crate) lifecycle_modes: Vec<String>,
    pub(crate) token_requests: Vec<TokenRequest>,
    pub(crate) tokens_in_secrets: bool,
    pub(crate) requires_republish: bool,
}

impl DriverFacts {
    fn read(driver: Option<&CSIDriver>) -> Self {
        let default = CSIDriverSpec::default();
        // `seLinuxMount` has no meaning on a node without SELinux, and Kedge sets no contexts of its own.
        let spec = driver.map_or(&default, |driver| &driver.spec);
        Self {
            known: driver.is_some(),
            attach_required: spec.attach_required.unwrap_or(true),
            pod_info: spec.pod_info_on_mount.unwrap_or(false),
            fs_group_policy: spec.fs_group_policy.clone().unwrap_or_else(|| "ReadWriteOnceWithFSType".to_owned()),
            lifecycle_modes: match spec.volume_lifecycle_modes.clone().unwrap_or_default() {
                modes if modes.is_empty() => vec!["Persistent".to_owned()],
                modes => modes,
            },
            token_requests: spec.token_requests.clone().unwrap_or_default(),
            tokens_in_secrets: spec.service_account_token_in_secrets.unwrap_or(false),
            requires_republish: spec.requires_republish.unwrap_or(false),
        }
    }

    /// Whether the driver has volumes of this life; upstream's words where it has not.
    pub(crate) fn allows(&self, driver: &str, lifecycle: &str) -> Result<(), String> {
        if self.lifecycle_modes.iter().any(|mode| mode == lifecycle) {
            return Ok(());
        }
        if !self.known {
            return Err(format!("volume mode {lifecycle:?} not supported by driver {driver} (no CSIDriver object)"));
        }
        let modes = self.lifecycle_modes.iter().map(|mode| format!("{mode:?}")).collect::<Vec<_>>().join(" ");
        Err(format!("volume mode {lifecycle:?} not supported by driver {driver} (only supports [{modes}])"))
    }
}

/// The drivers of this node's volumes.
pub(crate) struct DriverObjects {
    api: Api<CSIDriver>,
    known: Mutex<HashMap<String, (Arc<DriverFacts>, Instant)>>,
}

impl DriverObjects {
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), known: Mutex::default() }
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Arc<DriverFacts>, String> {
        let kept = self.known.lock().get(name).cloned();
        if let Some((facts, _)) = kept.as_ref().filter(|(_, at)| at.elapsed() < KEEP) {
            return Ok(facts.clone());
        }
        let problem = match tokio::time::timeout(REQUEST_TIMEOUT, self.api.get_opt(name)).await {
            Ok(Ok(driver)) => {
                let facts = Arc::new(DriverFacts::read(driver.as_ref()));
                let mut known = self.known.lock();
                // A node has few drivers; names of pods that ask for others must not pile up.
                known.retain(|_, (_, at)| at.elapsed() < KEEP * 60);
                known.insert(name.to_owned(), (facts.clone(), Instant::now()));
                return Ok(facts);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out waiting for the API server".to_owned(),
        };
        kept.map(|(facts, _)| facts).ok_or_else(|| format!("failed to get CSIDriver {name:?}: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_without_an_object_has_the_defaults() {
        let facts = DriverFacts::read(None);
        assert!(facts.attach_required && !facts.pod_info && !facts.known);
        assert_eq!(facts.fs_group_policy, "ReadWriteOnceWithFSType");
        assert_eq!(facts.allows("d", "Persistent"), Ok(()));
        assert_eq!(
            facts.allows("d", "Ephemeral"),
            Err("volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)".to_owned())
        );
        let driver = CSIDriver::default();
        assert_eq!(
            DriverFacts::read(Some(&driver)).allows("d", "Ephemeral"),
            Err("volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])".to_owned())
        );
    }
}
