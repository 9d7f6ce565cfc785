//! `ClusterConfiguration` of `kubeadm.k8s.io/v1beta4`: what all control planes share, and keep in `kubeadm-config`.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::documents::{API_VERSION, ConfigurationError, Documents};
use crate::timeouts::parse_duration;

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

impl ClusterConfiguration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let local = self.etcd.local.as_ref();
        let fields = [
            ("imageRepository", Some(&self.image_repository)),
            ("featureGates", Some(&self.feature_gates)),
            ("encryptionAlgorithm", Some(&self.encryption_algorithm)),
            ("dns.imageRepository", Some(&self.dns.image_repository)),
            ("dns.imageTag", Some(&self.dns.image_tag)),
            ("etcd.local.imageRepository", local.map(|local| &local.image_repository)),
            ("etcd.local.imageTag", local.map(|local| &local.image_tag)),
        ];
        let given = fields.into_iter().filter(|(_, value)| value.is_some_and(|value| !value.is_null()));
        given.map(|(name, _)| name).collect::<Vec<_>>().into_iter()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer: {certSANs: [a.example], extraArgs: [{name: v, value: '4'}]}
";

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
    }
}
