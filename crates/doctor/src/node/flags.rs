//! Flags of this machine's control plane, as its manifests have them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use kedge_diagnosis::{Evidence, Fact};
use serde_json::Value;

const API_PORT: u16 = 6443;

/// Values by component and flag.
#[derive(Debug, Default, Clone)]
pub(super) struct Flags {
    values: BTreeMap<(String, String), String>,
}

impl Flags {
    /// Those of the manifests that were read.
    pub(super) fn of_manifests(evidence: &Evidence) -> Self {
        let pods = evidence.items.iter().filter_map(|item| match &item.fact {
            Fact::Manifest(manifest) => manifest.pod.as_ref().ok(),
            _ => None,
        });
        let mut flags = Self::default();
        for pod in pods {
            flags.take(pod);
        }
        flags
    }

    fn take(&mut self, pod: &Value) {
        let container = &pod["spec"]["containers"][0];
        let component = container["name"].as_str().unwrap_or_default();
        let words = ["command", "args"].into_iter().flat_map(|field| container[field].as_array().into_iter().flatten());
        for (flag, value) in words.filter_map(|word| word.as_str()?.strip_prefix("--")?.split_once('=')) {
            self.values.insert((component.to_owned(), flag.to_owned()), value.to_owned());
        }
    }

    /// A value, or an empty text.
    pub(super) fn of(&self, component: &str, flag: &str) -> String {
        self.values.get(&(component.to_owned(), flag.to_owned())).cloned().unwrap_or_default()
    }

    /// Whether a component has a manifest here.
    pub(super) fn has(&self, component: &str) -> bool {
        self.values.keys().any(|(known, _)| known == component)
    }

    /// The port that the API server should have.
    pub(super) fn api_port(&self) -> u16 {
        self.of("kube-apiserver", "secure-port").parse().unwrap_or(API_PORT)
    }

    /// Where an API server should answer on this machine, if it is one of the control plane.
    pub(super) fn api_server(&self) -> Option<SocketAddr> {
        let is_expected = self.has("kube-apiserver") || Path::new("/etc/kubernetes/pki/apiserver.key").exists();
        is_expected.then(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.api_port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::{Item, ManifestFact, Place};
    use serde_json::json;

    #[test]
    fn flags_are_found_by_component() {
        let pod = json!({"spec": {"containers": [{"name": "kube-apiserver", "command": ["kube-apiserver", "--secure-port=7443", "--x"]}]}});
        let fact = Fact::Manifest(ManifestFact { path: "m".to_owned(), pod: Ok(pod) });
        let mut evidence = Evidence::default();
        evidence.items.push(Item { time: None, place: Place::Cluster, origin: "m".to_owned(), fact });
        let flags = Flags::of_manifests(&evidence);
        assert_eq!((flags.api_port(), flags.of("etcd", "cert-file")), (7443, String::new()));
        assert_eq!(flags.api_server(), "127.0.0.1:7443".parse().ok());
    }
}
