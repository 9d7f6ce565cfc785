//! kubeadm's configuration file, documents of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cluster_configuration::{Argument, ClusterConfiguration};
use crate::join::JoinConfiguration;
use crate::patches::PatchesConfiguration;
use crate::reset_configuration::ResetConfiguration;
use crate::timeouts::Timeouts;
use crate::upgrade::UpgradeConfiguration;

/// The version of the documents.
pub const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// Why documents are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The text is no YAML.
    #[error("the configuration is not YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// A document of another kind or version.
    #[error(
        "no kind {kind:?} of {api_version:?} is known; {API_VERSION} has InitConfiguration, ClusterConfiguration, JoinConfiguration, \
         UpgradeConfiguration and ResetConfiguration"
    )]
    Kind {
        /// What it says.
        api_version: String,
        /// What it says.
        kind: String,
    },
    /// A field is not known, or has the wrong type.
    #[error("{kind}: a field is not understood")]
    Field {
        /// The document.
        kind: &'static str,
        /// Which, and why.
        source: serde_json::Error,
    },
    /// A value makes no sense.
    #[error("{field}: {why}")]
    Value {
        /// The field or flag.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

/// How the node is registered.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeRegistration {
    /// Its name.
    pub name: String,
    /// The container runtime's socket.
    pub cri_socket: String,
    /// Taints; the control plane's where absent.
    pub taints: Option<Vec<Value>>,
    /// Flags of the kubelet.
    pub kubelet_extra_args: Vec<Argument>,
    /// Checks whose errors are warnings.
    pub ignore_preflight_errors: Vec<String>,
    image_pull_policy: Value,
    image_pull_serial: Value,
}

impl NodeRegistration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let fields = [
            ("nodeRegistration.imagePullPolicy", &self.image_pull_policy),
            ("nodeRegistration.imagePullSerial", &self.image_pull_serial),
        ];
        fields.map(|(name, value)| (!value.is_null()).then_some(name)).into_iter().flatten()
    }
}

/// Where this control plane is reached.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ApiEndpoint {
    /// Its address.
    pub advertise_address: String,
    /// The port.
    pub bind_port: u16,
}

/// A bootstrap token to make.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenConfiguration {
    /// The token.
    pub token: String,
    /// What it is for.
    pub description: String,
    /// How long it is good, as Go writes durations; `0` for ever.
    pub ttl: Option<String>,
    /// `signing`, `authentication`.
    pub usages: Option<Vec<String>>,
    /// Groups of who shows it.
    pub groups: Option<Vec<String>>,
    expires: Value,
}

/// What the first control plane is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InitConfiguration {
    /// Tokens to make.
    pub bootstrap_tokens: Vec<TokenConfiguration>,
    /// The key for the transfer of certificates.
    pub certificate_key: String,
    /// Whether to change nothing.
    pub dry_run: bool,
    /// Where this control plane is reached.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
    /// The node.
    pub node_registration: NodeRegistration,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// Where patches to what is written are.
    pub patches: PatchesConfiguration,
    pub(crate) timeouts: Timeouts,
}

/// A configuration file that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// What the first control plane is told.
    pub init: InitConfiguration,
    /// What a machine that joins is told, where there is such a document.
    pub join: Option<JoinConfiguration>,
    /// What an upgrade is told, where there is such a document.
    pub upgrade: Option<UpgradeConfiguration>,
    /// What a reset is told, where there is such a document.
    pub reset: Option<ResetConfiguration>,
    /// What all control planes share.
    pub cluster: ClusterConfiguration,
    /// The kinds that were read.
    pub kinds: Vec<String>,
    /// Fields of the kubelets' configuration that win over the usual ones.
    pub kubelet: Map<String, Value>,
    /// Fields of the proxies' configuration that win over the usual ones.
    pub proxy: Map<String, Value>,
    /// What in the file has no effect.
    pub without_effect: Vec<String>,
}

impl Documents {
    /// Reads a file's text.
    pub fn read(text: &str) -> Result<Self, ConfigurationError> {
        let mut read = Self::default();
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = Value::deserialize(document)?;
            let Value::Object(mut fields) = value else { continue };
            let mut said =
                |name: &str| fields.remove(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let (api_version, kind) = (said("apiVersion"), said("kind"));
            read.kinds.push(kind.clone());
            let wrap = |kind| move |source| ConfigurationError::Field { kind, source };
            match (api_version.as_str(), kind.as_str()) {
                (API_VERSION, "InitConfiguration") => {
                    let parsed = serde_json::from_value(Value::Object(fields));
                    read.init = parsed.map_err(wrap("InitConfiguration"))?;
                }
                (API_VERSION, "ClusterConfiguration") => {
                    let parsed = serde_json::from_value(Value::Object(fields));
                    read.cluster = parsed.map_err(wrap("ClusterConfiguration"))?;
                }
                (API_VERSION, "JoinConfiguration") => {
                    let parsed = serde_json::from_value(Value::Object(fields));
                    read.join = Some(parsed.map_err(wrap("JoinConfiguration"))?);
                }
                ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration") => read.kubelet = fields,
                ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration") => read.proxy = fields,
                (API_VERSION, "UpgradeConfiguration") => {
                    let parsed = serde_json::from_value(Value::Object(fields));
                    read.upgrade = Some(parsed.map_err(wrap("UpgradeConfiguration"))?);
                }
                (API_VERSION, "ResetConfiguration") => {
                    let parsed = serde_json::from_value(Value::Object(fields));
                    read.reset = Some(parsed.map_err(wrap("ResetConfiguration"))?);
                }
                _ => return Err(ConfigurationError::Kind { api_version, kind }),
            }
        }
        let unused = unused_fields(&read);
        read.without_effect.extend(unused);
        Ok(read)
    }
}

fn unused_fields(read: &Documents) -> Vec<String> {
    let init = &read.init;
    let timeouts = init.timeouts.without_effect(&["controlPlaneComponentHealthCheck", "kubeletHealthCheck"]);
    let expires = init.bootstrap_tokens.iter().any(|token| !token.expires.is_null());
    let others = init.node_registration.without_effect().chain(expires.then_some("bootstrapTokens.expires"));
    let of_init = timeouts.chain(others.map(str::to_owned)).map(|name| format!("InitConfiguration.{name}"));
    let of_cluster = read.cluster.without_effect().map(|name| format!("ClusterConfiguration.{name}"));
    of_init.chain(of_cluster).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: n1, taints: []}
localAPIEndpoint: {advertiseAddress: 192.0.2.2}
timeouts: {controlPlaneComponentHealthCheck: 4m0s, etcdAPICall: 2m0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
controlPlaneEndpoint: lb.example
networking: {podSubnet: 10.244.0.0/16}
apiServer: {certSANs: [a.example], extraArgs: [{name: v, value: '4'}]}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 50
";

    #[test]
    fn documents_are_read_and_what_has_no_effect_is_named() {
        let read = Documents::read(TEXT).unwrap();
        assert_eq!(read.init.node_registration.name, "n1");
        assert_eq!(read.init.node_registration.taints, Some(Vec::new()));
        assert_eq!(read.cluster.networking.pod_subnet, "10.244.0.0/16");
        assert_eq!(read.cluster.networking.service_subnet, "10.96.0.0/12");
        assert_eq!(read.cluster.api_server.cert_sans, ["a.example"]);
        assert_eq!(read.kubelet["maxPods"], 50);
        assert_eq!(read.without_effect, ["InitConfiguration.timeouts.etcdAPICall"]);
        let unknown = TEXT.replace("podSubnet", "podSubnett");
        assert!(matches!(Documents::read(&unknown), Err(ConfigurationError::Field { .. })));
        let old = TEXT.replace("v1beta4", "v1beta2");
        assert!(matches!(Documents::read(&old), Err(ConfigurationError::Kind { .. })));
    }
}
