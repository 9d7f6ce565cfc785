//! The files that `init` and `join` read: what stands in them where nobody says otherwise, and those of the version before
//! in today's words.
//!
//! Pure. Invariant: what is printed here is read back without a complaint.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cluster_configuration::ClusterConfiguration;
use crate::documents::{API_VERSION, ConfigurationError, Documents};
use crate::host::CERTIFICATES_DIR;
use crate::kubelet_service::kubelet_configuration;

const BEFORE: &str = "kubeadm.k8s.io/v1beta3";
const SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// What stands for values that each cluster has its own of; upstream's.
const TOKEN: &str = "abcdef.0123456789abcdef";

/// What `kedge init` does without a file, as one. `components` are kinds of further documents.
pub fn init_defaults(components: &[String]) -> Result<String, ConfigurationError> {
    let init = json!({
        "apiVersion": API_VERSION, "kind": "InitConfiguration",
        "bootstrapTokens": [{
            "groups": ["system:bootstrappers:kubeadm:default-node-token"], "token": TOKEN, "ttl": "24h0m0s",
            "usages": ["signing", "authentication"],
        }],
        "localAPIEndpoint": {"advertiseAddress": "1.2.3.4", "bindPort": 6443},
        "nodeRegistration": {"criSocket": SOCKET, "name": "node", "taints": null},
    });
    let kubernetes_version = kedge_meta::KUBERNETES_VERSION.trim_start_matches('v').to_owned();
    let cluster = ClusterConfiguration { kubernetes_version, ..ClusterConfiguration::default() };
    let documents = [Ok(yaml(&init)), Ok(cluster.to_yaml())].into_iter();
    let further = components.iter().map(|kind| component_defaults(kind, &cluster));
    Ok(documents.chain(further).collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

/// What a file for `kedge join` looks like. `components` are kinds of further documents.
pub fn join_defaults(components: &[String]) -> Result<String, ConfigurationError> {
    let join = json!({
        "apiVersion": API_VERSION, "kind": "JoinConfiguration",
        "caCertPath": "/etc/kubernetes/pki/ca.crt",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": "kube-apiserver:6443", "token": TOKEN, "unsafeSkipCAVerification": true,
            },
            "tlsBootstrapToken": TOKEN,
        },
        "nodeRegistration": {"criSocket": SOCKET, "name": "node", "taints": null},
        "timeouts": {"discovery": "5m0s", "tlsBootstrap": "5m0s"},
    });
    let cluster = ClusterConfiguration::default();
    let further = components.iter().map(|kind| component_defaults(kind, &cluster));
    Ok(std::iter::once(Ok(yaml(&join))).chain(further).collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

/// What `kedge reset` does without a file, as one.
pub fn reset_defaults() -> String {
    yaml(&json!({"apiVersion": API_VERSION, "kind": "ResetConfiguration", "certificatesDir": CERTIFICATES_DIR}))
}

/// What `kedge upgrade` does without a file, as one.
pub fn upgrade_defaults() -> String {
    yaml(&json!({
        "apiVersion": API_VERSION, "kind": "UpgradeConfiguration",
        "apply": {"certificateRenewal": true, "etcdUpgrade": true},
        "diff": {},
        "node": {"certificateRenewal": true, "etcdUpgrade": true},
        "plan": {"etcdUpgrade": true},
        "timeouts": {"upgradeManifests": "5m0s"},
    }))
}

fn component_defaults(kind: &str, cluster: &ClusterConfiguration) -> Result<String, ConfigurationError> {
    match kind {
        "KubeletConfiguration" => Ok(yaml(&kubelet_configuration(cluster, &["10.96.0.10".to_owned()], &Map::new()))),
        "KubeProxyConfiguration" => {
            Ok(yaml(&json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": kind, "mode": "nftables"})))
        }
        _ => Err(ConfigurationError::Value {
            field: "--component-configs".to_owned(),
            why: format!("{kind:?} is neither KubeletConfiguration nor KubeProxyConfiguration"),
        }),
    }
}

/// Reads a file as `init` and `join` do; returns what in it has no effect.
pub fn validate(text: &str) -> Result<Vec<String>, ConfigurationError> {
    let read = Documents::read(text)?;
    let join = read.join.iter().flat_map(|join| join.without_effect());
    let upgrade = read.upgrade.iter().flat_map(|upgrade| upgrade.without_effect());
    let reset = read.reset.iter().flat_map(|reset| reset.without_effect());
    Ok(read.without_effect.into_iter().chain(join).chain(upgrade).chain(reset).collect())
}

/// The documents of a file in today's version; those of others stay as they are.
pub fn migrate(text: &str) -> Result<String, ConfigurationError> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let document = Value::deserialize(document)?;
        if !document.is_null() {
            documents.push(document);
        }
    }
    let mut wait = None;
    for document in &mut documents {
        if document["apiVersion"] == BEFORE {
            document["apiVersion"] = json!(API_VERSION);
            wait = wait.or(of_today(document));
        }
    }
    // How long the API server is waited for is told to the machine now, not to the cluster.
    if let Some(wait) = wait {
        match documents.iter_mut().find(|document| document["kind"] == "InitConfiguration") {
            Some(init) => init["timeouts"]["controlPlaneComponentHealthCheck"] = wait,
            None => documents.push(json!({
                "apiVersion": API_VERSION, "kind": "InitConfiguration",
                "timeouts": {"controlPlaneComponentHealthCheck": wait},
            })),
        }
    }
    let text = documents.iter().map(yaml).collect::<Vec<_>>().join("---\n");
    Documents::read(&text)?;
    Ok(text)
}

/// Changes what v1beta4 says otherwise; returns what belongs into another document.
fn of_today(document: &mut Value) -> Option<Value> {
    for place in [
        "/apiServer/extraArgs",
        "/controllerManager/extraArgs",
        "/scheduler/extraArgs",
        "/etcd/local/extraArgs",
        "/nodeRegistration/kubeletExtraArgs",
    ] {
        if let Some(arguments) = document.pointer_mut(place) {
            *arguments = listed(arguments);
        }
    }
    let take = |document: &mut Value, object: &str, field: &str| {
        document.pointer_mut(object).and_then(Value::as_object_mut).and_then(|object| object.remove(field))
    };
    if let Some(timeout) = take(document, "/discovery", "timeout") {
        document["timeouts"]["discovery"] = timeout;
    }
    take(document, "/apiServer", "timeoutForControlPlane")
}

/// Flags as a list; they were a map.
fn listed(arguments: &Value) -> Value {
    match arguments {
        Value::Object(map) => map.iter().map(|(name, value)| json!({"name": name, "value": value})).collect(),
        other => other.clone(),
    }
}

fn yaml(document: &Value) -> String {
    serde_yaml::to_string(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read_back() {
        let both = ["KubeletConfiguration".to_owned(), "KubeProxyConfiguration".to_owned()];
        let text = init_defaults(&both).unwrap();
        assert_eq!(validate(&text).unwrap(), Vec::<String>::new(), "{text}");
        let read = Documents::read(&text).unwrap();
        assert_eq!(
            (read.cluster.kubernetes_version.as_str(), read.init.local_api_endpoint.bind_port),
            ("1.36.0", 6443)
        );
        assert_eq!(read.kubelet["clusterDomain"], "cluster.local");
        let text = join_defaults(&[]).unwrap();
        assert_eq!(validate(&text).unwrap(), Vec::<String>::new(), "{text}");
        assert!(init_defaults(&["Other".to_owned()]).is_err());
        for text in [reset_defaults(), upgrade_defaults()] {
            assert_eq!(validate(&text).unwrap(), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn files_of_the_version_before_are_converted() {
        let old = "apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
apiServer: {timeoutForControlPlane: 4m0s, extraArgs: {v: '4'}}
---
apiVersion: kubeadm.k8s.io/v1beta3
kind: JoinConfiguration
discovery: {timeout: 5m0s, tlsBootstrapToken: abcdef.0123456789abcdef}
nodeRegistration: {kubeletExtraArgs: {node-ip: 192.0.2.2}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 50
";
        let read = Documents::read(&migrate(old).unwrap()).unwrap();
        assert_eq!((read.cluster.api_server.extra_args[0].name.as_str(), read.kinds.len()), ("v", 4));
        let join = read.join.unwrap();
        assert_eq!(join.node_registration.kubelet_extra_args[0].value, "192.0.2.2");
        assert_eq!(read.without_effect, Vec::<String>::new());
        assert!(migrate("apiVersion: kubeadm.k8s.io/v1beta1\nkind: ClusterConfiguration\n").is_err());
        assert!(migrate("apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nnonsense: 1\n").is_err());
    }
}
