//! kubeadm's configuration documents, `kubeadm.k8s.io/v1beta4`: what of them has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::join::JoinConfiguration;
use crate::patches::PatchesConfiguration;
use crate::reset_configuration::ResetConfiguration;
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

/// One flag of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    /// Without the leading `--`.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A directory or file of the host that a component sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPathMount {
    /// Name of the volume.
    pub name: String,
    /// On the host.
    pub host_path: String,
    /// In the container.
    pub mount_path: String,
    /// Whether it is not to be written to.
    #[serde(default)]
    pub read_only: bool,
    /// As in a hostPath volume.
    #[serde(default)]
    pub path_type: String,
}

/// What can be said of one component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Component {
    /// Flags that win over the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<Argument>,
    /// Volumes besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_volumes: Vec<HostPathMount>,
    /// Environment variables, as in a container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_envs: Vec<Value>,
    /// Further names and addresses of the API server's certificate.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
}

/// The etcd on the control planes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LocalEtcd {
    /// Where its data is.
    pub data_dir: String,
    /// Flags that win over the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<Argument>,
    /// Environment variables, as in a container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_envs: Vec<Value>,
    /// Further names and addresses of the serving certificate.
    #[serde(rename = "serverCertSANs", skip_serializing_if = "Vec::is_empty")]
    pub server_cert_sans: Vec<String>,
    /// Further names and addresses of the peers' certificate.
    #[serde(rename = "peerCertSANs", skip_serializing_if = "Vec::is_empty")]
    pub peer_cert_sans: Vec<String>,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub image_repository: Value,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub image_tag: Value,
}

impl Default for LocalEtcd {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/etcd".to_owned(),
            extra_args: Vec::new(),
            extra_envs: Vec::new(),
            server_cert_sans: Vec::new(),
            peer_cert_sans: Vec::new(),
            image_repository: Value::Null,
            image_tag: Value::Null,
        }
    }
}

/// An etcd elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExternalEtcd {
    /// Its members' URLs.
    pub endpoints: Vec<String>,
    /// Who signed their certificates.
    pub ca_file: String,
    /// The client's certificate.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub http_endpoints: Value,
}

/// Where objects are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Etcd {
    /// On the control planes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalEtcd>,
    /// Elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEtcd>,
}

/// The ranges and the domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Networking {
    /// DNS domain of Services.
    pub dns_domain: String,
    /// Range of pods; empty where somebody else gives pods addresses.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_subnet: String,
    /// Range of Services.
    pub service_subnet: String,
}

impl Default for Networking {
    fn default() -> Self {
        Self {
            dns_domain: "cluster.local".to_owned(),
            pod_subnet: String::new(),
            service_subnet: "10.96.0.0/12".to_owned(),
        }
    }
}

/// Whether an add-on is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Addon {
    /// It is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub image_repository: Value,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub image_tag: Value,
}

/// What all control planes of a cluster share; kept in the ConfigMap `kubeadm-config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterConfiguration {
    /// The API server.
    pub api_server: Component,
    /// Where certificates are.
    pub certificates_dir: String,
    /// The cluster's name in kubeconfigs.
    pub cluster_name: String,
    /// The address under which all control planes are reached, with or without a port; empty for the first one's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub control_plane_endpoint: String,
    /// The controllers.
    pub controller_manager: Component,
    /// Cluster DNS.
    pub dns: Addon,
    /// Where objects are kept.
    pub etcd: Etcd,
    /// The version of the API.
    pub kubernetes_version: String,
    /// Ranges and domain.
    pub networking: Networking,
    /// The proxy.
    pub proxy: Addon,
    /// The scheduler.
    pub scheduler: Component,
    /// Has no effect: images are made on the machine.
    #[serde(skip_serializing)]
    pub image_repository: Value,
    /// Has no effect.
    #[serde(skip_serializing)]
    pub feature_gates: Value,
    /// Has no effect: keys are on the curve P-256.
    #[serde(skip_serializing)]
    pub encryption_algorithm: Value,
    /// How long certificates are good: a year, where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_validity_period: Option<Period>,
    /// How long authorities are: ten years, where it is not said.
    #[serde(rename = "caCertificateValidityPeriod", skip_serializing_if = "Option::is_none")]
    pub ca_certificate_validity_period: Option<Period>,
}

/// A length of time of at least a minute, as Go writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    text: String,
    length: Duration,
}

impl Period {
    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let length = parse_duration(&text).filter(|length| *length >= Duration::from_secs(60));
        let length = length.ok_or_else(|| format!("{text:?} is no duration of a minute or more, such as 8760h0m0s"))?;
        Ok(Self { text, length })
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.text
    }
}

impl Default for ClusterConfiguration {
    fn default() -> Self {
        Self {
            api_server: Component::default(),
            certificates_dir: crate::host::CERTIFICATES_DIR.to_owned(),
            cluster_name: "kubernetes".to_owned(),
            control_plane_endpoint: String::new(),
            controller_manager: Component::default(),
            dns: Addon::default(),
            etcd: Etcd::default(),
            kubernetes_version: String::new(),
            networking: Networking::default(),
            proxy: Addon::default(),
            scheduler: Component::default(),
            image_repository: Value::Null,
            feature_gates: Value::Null,
            encryption_algorithm: Value::Null,
            certificate_validity_period: None,
            ca_certificate_validity_period: None,
        }
    }
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
    timeouts: Value,
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
    let (init, cluster) = (&read.init, &read.cluster);
    let local = cluster.etcd.local.clone().unwrap_or_default();
    let fields = [
        ("InitConfiguration.timeouts", &init.timeouts),
        ("ClusterConfiguration.imageRepository", &cluster.image_repository),
        ("ClusterConfiguration.featureGates", &cluster.feature_gates),
        ("ClusterConfiguration.encryptionAlgorithm", &cluster.encryption_algorithm),
        ("ClusterConfiguration.dns.imageRepository", &cluster.dns.image_repository),
        ("ClusterConfiguration.dns.imageTag", &cluster.dns.image_tag),
        ("ClusterConfiguration.etcd.local.imageRepository", &local.image_repository),
        ("ClusterConfiguration.etcd.local.imageTag", &local.image_tag),
    ];
    let named = fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.to_owned());
    let expires = init.bootstrap_tokens.iter().any(|token| !token.expires.is_null());
    let of_node = init.node_registration.without_effect().map(|name| format!("InitConfiguration.{name}"));
    named.chain(of_node).chain(expires.then(|| "InitConfiguration.bootstrapTokens.expires".to_owned())).collect()
}

impl ClusterConfiguration {
    /// Reads the text that is kept in the ConfigMap `kubeadm-config`.
    pub fn from_cluster(text: &str) -> Result<Self, ConfigurationError> {
        Ok(Documents::read(text)?.cluster)
    }

    /// The text that is kept in the ConfigMap `kubeadm-config`.
    pub fn to_yaml(&self) -> String {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        document["apiVersion"] = json!(API_VERSION);
        document["kind"] = json!("ClusterConfiguration");
        if self.etcd.local.is_none() && self.etcd.external.is_none() {
            document["etcd"] = json!({"local": {"dataDir": LocalEtcd::default().data_dir}});
        }
        serde_yaml::to_string(&document).unwrap_or_default()
    }

    /// The etcd on the control planes, where that is where objects are.
    pub fn local_etcd(&self) -> Option<LocalEtcd> {
        self.etcd.external.is_none().then(|| self.etcd.local.clone().unwrap_or_default())
    }

    /// `host:port` under which all control planes are reached.
    pub fn endpoint(&self, local: &LocalEndpoint) -> String {
        if self.control_plane_endpoint.is_empty() {
            return local.host_port();
        }
        let endpoint = self.control_plane_endpoint.trim_start_matches("https://");
        let has_port = endpoint
            .rsplit_once(':')
            .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
        match (has_port, endpoint.parse::<IpAddr>()) {
            (true, _) => endpoint.to_owned(),
            (false, Ok(address)) => std::net::SocketAddr::new(address, local.bind_port).to_string(),
            (false, Err(_)) => format!("{endpoint}:{}", local.bind_port),
        }
    }

    /// The host part of the shared endpoint, where there is one.
    pub fn endpoint_host(&self) -> Option<String> {
        let endpoint = self.control_plane_endpoint.trim_start_matches("https://");
        if endpoint.is_empty() {
            return None;
        }
        let host = match endpoint.parse::<IpAddr>() {
            Ok(_) => endpoint,
            Err(_) => endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host),
        };
        Some(host.trim_matches(['[', ']']).to_owned())
    }
}

/// This control plane's own endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// The address that others are told.
    pub advertise_address: IpAddr,
    /// The port.
    pub bind_port: u16,
}

impl LocalEndpoint {
    /// `host:port`.
    pub fn host_port(&self) -> String {
        std::net::SocketAddr::new(self.advertise_address, self.bind_port).to_string()
    }
}

/// Go's way of writing durations, for the fields that have some.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut number = String::new();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    for character in text.chars() {
        let unit = match character {
            '0'..='9' | '.' => {
                number.push(character);
                continue;
            }
            'h' => 3600.0,
            'm' => 60.0,
            's' => 1.0,
            _ => return None,
        };
        total += unit * number.parse::<f64>().ok()?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty() && total < 1e9).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_live_as_long_as_is_said() {
        let text = |period: &str| {
            format!("apiVersion: {API_VERSION}\nkind: ClusterConfiguration\ncertificateValidityPeriod: {period}\n")
        };
        let read = Documents::read(&text("4380h0m0s")).unwrap();
        let period = read.cluster.certificate_validity_period.clone().unwrap();
        assert_eq!(period.length(), Duration::from_secs(4380 * 3600));
        assert!(read.without_effect.is_empty());
        assert_eq!(serde_json::to_value(&read.cluster).unwrap()["certificateValidityPeriod"], "4380h0m0s");
        for wrong in ["30s", "a year", "-1h"] {
            assert!(Documents::read(&text(wrong)).is_err(), "{wrong}");
        }
    }

    const TEXT: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: n1, taints: []}
localAPIEndpoint: {advertiseAddress: 192.0.2.2}
timeouts: {controlPlaneComponentHealthCheck: 4m0s}
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
        assert_eq!(read.without_effect, ["InitConfiguration.timeouts"]);
        let unknown = TEXT.replace("podSubnet", "podSubnett");
        assert!(matches!(Documents::read(&unknown), Err(ConfigurationError::Field { .. })));
        let old = TEXT.replace("v1beta4", "v1beta2");
        assert!(matches!(Documents::read(&old), Err(ConfigurationError::Kind { .. })));
    }

    #[test]
    fn what_is_kept_in_the_cluster_reads_back() {
        let cluster = Documents::read(TEXT).unwrap().cluster;
        let text = cluster.to_yaml();
        let back = ClusterConfiguration::from_cluster(&text).unwrap();
        assert_eq!(back.api_server, cluster.api_server);
        assert_eq!(back.etcd.local, Some(LocalEtcd::default()), "{text}");
    }

    #[test]
    fn the_endpoint_has_a_port() {
        let local = LocalEndpoint { advertise_address: "192.0.2.2".parse().unwrap(), bind_port: 6443 };
        let check = |endpoint: &str, expected: &str, host: Option<&str>| {
            let control_plane_endpoint = endpoint.to_owned();
            let cluster = ClusterConfiguration { control_plane_endpoint, ..ClusterConfiguration::default() };
            assert_eq!(cluster.endpoint(&local), expected, "{endpoint}");
            assert_eq!(cluster.endpoint_host().as_deref(), host, "{endpoint}");
        };
        check("", "192.0.2.2:6443", None);
        check("lb.example", "lb.example:6443", Some("lb.example"));
        check("lb.example:443", "lb.example:443", Some("lb.example"));
        check("fd00::1", "[fd00::1]:6443", Some("fd00::1"));
        check("[fd00::1]:443", "[fd00::1]:443", Some("fd00::1"));
        assert_eq!(parse_duration("24h0m0s"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("soon"), None);
    }
}
