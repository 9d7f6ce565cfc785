//! The drivers of dynamic resource allocation that are registered on this node.
//!
//! Invariant: a driver is found here while one of its registrations stands; of several, the newest is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_csi::{Channel, CsiError};
use parking_lot::Mutex;

use crate::v1::{
    Claim, NodePrepareResourcesRequest, NodePrepareResourcesResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};

/// Upstream's deadline of a call.
const CALL_DEADLINE: Duration = Duration::from_secs(45);
const V1: &str = "v1.DRAPlugin";
const V1BETA1: &str = "v1beta1.DRAPlugin";

/// One registration of a driver.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    endpoint: PathBuf,
    channel: Channel,
    is_v1: bool,
}

impl Driver {
    pub(crate) async fn prepare(&self, claims: Vec<Claim>) -> Result<NodePrepareResourcesResponse, CsiError> {
        let method = match self.is_v1 {
            true => "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
            false => "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
        };
        self.channel.call(method, NodePrepareResourcesRequest { claims }).await
    }

    pub(crate) async fn unprepare(&self, claims: Vec<Claim>) -> Result<NodeUnprepareResourcesResponse, CsiError> {
        let method = match self.is_v1 {
            true => "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
            false => "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
        };
        self.channel.call(method, NodeUnprepareResourcesRequest { claims }).await
    }
}

/// By name; the newest registration is the last one.
#[derive(Debug, Default)]
pub(crate) struct Drivers(Mutex<BTreeMap<String, Vec<Driver>>>);

impl Drivers {
    /// Takes a registration in, or says in upstream's words why not.
    pub(crate) fn insert(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        let is_v1 = is_v1(versions).map_err(|why| {
            let endpoint = endpoint.display();
            format!("invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: {why}")
        })?;
        let mut drivers = self.0.lock();
        let known = drivers.entry(name.to_owned()).or_default();
        if known.iter().any(|driver| driver.endpoint == endpoint) {
            let endpoint = endpoint.display();
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
        }
        known.push(Driver { endpoint: endpoint.to_owned(), channel: Channel::new(endpoint, CALL_DEADLINE), is_v1 });
        Ok(())
    }

    /// Ends a registration.
    pub(crate) fn remove(&self, name: &str, endpoint: &Path) {
        let mut drivers = self.0.lock();
        if let Some(known) = drivers.get_mut(name) {
            known.retain(|driver| driver.endpoint != endpoint);
            if known.is_empty() {
                drivers.remove(name);
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    /// The driver, or upstream's words for that it is not there.
    pub(crate) fn get(&self, name: &str) -> Result<Driver, String> {
        let newest = self.0.lock().get(name).and_then(|known| known.last().cloned());
        newest.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }
}

/// Which version of the service is spoken.
fn is_v1(supported: &[String]) -> Result<bool, String> {
    if supported.is_empty() {
        return Err("empty list of supported gRPC services (aka supported versions)".to_owned());
    }
    let has = |service: &str| supported.iter().any(|known| known == service);
    // Drivers of the first versions said `1.0.0`.
    let is_old = supported.iter().any(|known| known.starts_with("1.") || known.starts_with("v1beta1"));
    match (has(V1), has(V1BETA1) || is_old) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(format!(
            "none of services supported by the plugin ({supported:?}) are supported by the kubelet ({:?})",
            [V1, V1BETA1]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_registration_counts() {
        let drivers = Drivers::default();
        let versions = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>();
        let insert = |socket: &str, offered: &[&str]| drivers.insert("d", Path::new(socket), &versions(offered));
        assert!(insert("/a", &[]).is_err() && insert("/a", &["v9.DRAPlugin"]).is_err());
        assert_eq!(drivers.get("d").unwrap_err(), "DRA driver d is not registered");
        insert("/a", &[V1BETA1]).unwrap();
        insert("/b", &[V1, V1BETA1]).unwrap();
        let again = insert("/b", &[V1]).unwrap_err();
        assert_eq!(again, "endpoint /b already registered for DRA driver plugin d");
        let newest = || drivers.get("d").map(|driver| (driver.endpoint.display().to_string(), driver.is_v1));
        assert_eq!(newest(), Ok(("/b".to_owned(), true)));
        drivers.remove("d", Path::new("/b"));
        assert_eq!(newest(), Ok(("/a".to_owned(), false)));
        drivers.remove("d", Path::new("/a"));
        assert!(!drivers.has("d"));
    }
}
