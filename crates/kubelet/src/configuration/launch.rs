//! Fields of upstream's document that the starter of the kubelet acts on: its server, its runtime, its certificates.
//!
//! Pure. Invariant: a field that is empty in Go's sense reads as absent.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::ConfigurationError;
use crate::config::CgroupDriver;

/// What a file says about how the kubelet is started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchSettings {
    /// Whether the kubelet's server answers those who do not say who they are.
    pub anonymous_auth: Option<bool>,
    /// Who makes the cgroups of pods.
    pub cgroup_driver: Option<CgroupDriver>,
    /// Who signs the certificates of those who ask.
    pub client_ca_file: Option<PathBuf>,
    /// The container runtime's socket.
    pub container_runtime_endpoint: Option<String>,
    /// The addresses of pods, where nobody assigns them.
    pub pod_cidr: Option<String>,
    /// Logs of containers.
    pub pod_logs_dir: Option<PathBuf>,
    /// The port of the kubelet's server.
    pub port: Option<u16>,
    /// Whether the client certificate is renewed.
    pub rotate_certificates: bool,
    /// Whether the cluster is asked for the serving certificate.
    pub server_tls_bootstrap: bool,
    /// The serving certificate.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub tls_private_key_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    authentication: Authentication,
    cgroup_driver: String,
    container_runtime_endpoint: String,
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    pod_logs_dir: String,
    port: u16,
    rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: bool,
    tls_cert_file: String,
    tls_private_key_file: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Authentication {
    anonymous: Anonymous,
    x509: X509,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Anonymous {
    enabled: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: String,
}

impl LaunchSettings {
    pub(super) fn read(document: &Value) -> Result<Self, ConfigurationError> {
        let fields: Fields = serde_json::from_value(document.clone()).map_err(ConfigurationError::Field)?;
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let path = |text: String| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
        let cgroup_driver = match fields.cgroup_driver.as_str() {
            "" => None,
            "cgroupfs" => Some(CgroupDriver::Cgroupfs),
            "systemd" => Some(CgroupDriver::Systemd),
            other => return Err(ConfigurationError::invalid("cgroupDriver", format!("unknown driver {other:?}"))),
        };
        Ok(Self {
            anonymous_auth: fields.authentication.anonymous.enabled,
            cgroup_driver,
            client_ca_file: path(fields.authentication.x509.client_ca_file),
            container_runtime_endpoint: text(fields.container_runtime_endpoint),
            pod_cidr: text(fields.pod_cidr),
            pod_logs_dir: path(fields.pod_logs_dir),
            port: Some(fields.port).filter(|port| *port > 0),
            rotate_certificates: fields.rotate_certificates,
            server_tls_bootstrap: fields.server_tls_bootstrap,
            tls_cert_file: path(fields.tls_cert_file),
            tls_private_key_file: path(fields.tls_private_key_file),
        })
    }
}
