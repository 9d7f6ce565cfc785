//! What `kedge join` was asked for, and what follows from it.
//!
//! Invariant: how the cluster is found, and whether that is safe, is decided before anything else happens.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kedge_bootstrap::{BootstrapToken, CertificateKey, Discovery};
use serde_json::Value;

use super::file::{merged, read_file, taint_text};
use crate::addresses::{find_node_ip, hostname};
use crate::cluster_configuration::Argument;
use crate::documents::ConfigurationError;
use crate::health_wait::HealthPatience;
use crate::join::control_plane::ControlPlaneSettings;

const PORT: u16 = 6443;
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(300);
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(300);

/// Flags, as they were given; each has the name of its field.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names are the flags', which say themselves what they are for")]
pub struct JoinFlags {
    pub config: Option<PathBuf>,
    pub endpoint: Option<String>,
    pub token: Option<BootstrapToken>,
    pub discovery_token: Option<BootstrapToken>,
    pub tls_bootstrap_token: Option<BootstrapToken>,
    pub discovery_token_ca_cert_hash: Vec<String>,
    pub discovery_token_unsafe_skip_ca_verification: bool,
    pub discovery_file: Option<PathBuf>,
    pub node_name: Option<String>,
    pub node_ip: Option<IpAddr>,
    pub cri_socket: Option<String>,
    pub ignore_preflight_errors: Vec<String>,
    pub skip_phases: Vec<String>,
    pub dry_run: bool,
    pub fix: bool,
    pub renew: bool,
    pub control_plane: bool,
    pub certificate_key: Option<CertificateKey>,
    pub apiserver_bind_port: Option<u16>,
    pub patches: Option<PathBuf>,
}

/// The same, complete.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// How the cluster is found.
    pub discovery: Discovery,
    /// The token with which the kubelet asks for its certificate, where it is not the discovery file's.
    pub tls_bootstrap_token: Option<BootstrapToken>,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The container runtime's socket; found where absent.
    pub cri_socket: Option<String>,
    /// Checks whose errors are warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Whether the machine is mended.
    pub fix: bool,
    /// Where the cluster's authority is written; with the other certificates where absent.
    pub ca_cert_path: Option<PathBuf>,
    /// Taints with which a worker registers, as `key=value:effect`.
    pub taints: Vec<String>,
    /// Taints of a control plane; the usual one where absent.
    pub control_plane_taints: Option<Vec<Value>>,
    /// Flags of the kubelet.
    pub kubelet_extra_args: Vec<Argument>,
    /// How long the cluster is looked for.
    pub discovery_patience: Duration,
    /// How long the kubelet may take to get its certificate.
    pub bootstrap_patience: Duration,
    /// How long what is started may take to become well.
    pub health_patience: HealthPatience,
    /// What in the file has no effect.
    pub without_effect: Vec<String>,
    /// Whether the machine is a node already, and only needs another certificate.
    pub renew: bool,
    /// What a further control plane is asked for; a worker has none.
    pub control_plane: Option<ControlPlaneSettings>,
    /// Where patches to what is written are.
    pub patches: Option<PathBuf>,
}

impl JoinSettings {
    /// Reads the file, checks the flags and looks at the machine for what nobody said.
    pub fn new(flags: JoinFlags) -> Result<Self, ConfigurationError> {
        let (file, without_effect) = read_file(&flags)?;
        let flags = merged(flags, &file)?;
        let discovery = discovery(&flags)?;
        let node_name = match flags.node_name {
            Some(name) => name,
            None => hostname().map_err(|error| wrong("--node-name", error.to_string()))?,
        };
        let node_ip = match flags.node_ip {
            Some(address) => address,
            None => find_node_ip(false).map_err(|error| wrong("--node-ip", error.to_string()))?,
        };
        let registration = file.node_registration;
        let of_workers = registration.taints.iter().flatten().filter(|_| !flags.control_plane);
        Ok(Self {
            discovery,
            tls_bootstrap_token: flags.tls_bootstrap_token.or(flags.token),
            node_name,
            node_ip,
            cri_socket: flags.cri_socket,
            ignore_preflight_errors: flags.ignore_preflight_errors,
            skip_phases: flags.skip_phases,
            dry_run: flags.dry_run,
            fix: flags.fix,
            ca_cert_path: (!file.ca_cert_path.is_empty()).then(|| file.ca_cert_path.clone().into()),
            taints: of_workers.map(taint_text).collect::<Result<_, _>>()?,
            control_plane_taints: registration.taints,
            kubelet_extra_args: registration.kubelet_extra_args,
            discovery_patience: file.timeouts.patience("discovery", DISCOVERY_PATIENCE)?,
            bootstrap_patience: file.timeouts.patience("tlsBootstrap", BOOTSTRAP_PATIENCE)?,
            health_patience: file.timeouts.health()?,
            without_effect,
            renew: flags.renew,
            patches: flags.patches,
            control_plane: flags.control_plane.then_some(ControlPlaneSettings {
                certificate_key: flags.certificate_key,
                bind_port: flags.apiserver_bind_port.unwrap_or(PORT),
            }),
        })
    }

    /// The host of the API server that was named, without its port.
    pub(super) fn api_host(&self) -> Option<String> {
        let Discovery::Token { endpoint, .. } = &self.discovery else { return None };
        let (host, _) = endpoint.rsplit_once(':')?;
        Some(host.trim_matches(['[', ']']).to_owned())
    }
}

pub(super) fn wrong(field: &str, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Value { field: field.to_owned(), why: why.into() }
}

fn discovery(flags: &JoinFlags) -> Result<Discovery, ConfigurationError> {
    let token = flags.discovery_token.clone().or_else(|| flags.token.clone());
    match (&flags.discovery_file, token) {
        (Some(_), Some(_)) if flags.discovery_token.is_some() => {
            Err(wrong("discovery", "bootstrapToken and file cannot both be set"))
        }
        (Some(path), _) => {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => Ok(Discovery::File { name, text }),
                Err(error) => Err(wrong("--discovery-file", format!("{name}: {error}"))),
            }
        }
        (None, None) => {
            Err(wrong("discovery", "bootstrapToken or file must be set: name --token, or --discovery-file"))
        }
        (None, Some(token)) => by_token(flags, token),
    }
}

fn by_token(flags: &JoinFlags, token: BootstrapToken) -> Result<Discovery, ConfigurationError> {
    let endpoint = flags.endpoint.as_deref().map(|endpoint| endpoint.trim_start_matches("https://"));
    let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
        return Err(wrong(
            "discovery.bootstrapToken.apiServerEndpoint",
            "name the API server, as in `kedge join 10.0.0.1:6443`",
        ));
    };
    let pins = flags.discovery_token_ca_cert_hash.clone();
    if let Some(pin) = pins.iter().find(|pin| !is_pin(pin)) {
        return Err(wrong(
            "--discovery-token-ca-cert-hash",
            format!("{pin:?} is not sha256: and 64 hexadecimal digits"),
        ));
    }
    if pins.is_empty() && !flags.discovery_token_unsafe_skip_ca_verification {
        return Err(wrong(
            "discovery.bootstrapToken",
            "using token-based discovery without caCertHashes can be unsafe. Pass --discovery-token-ca-cert-hash, or \
             --discovery-token-unsafe-skip-ca-verification to continue",
        ));
    }
    let has_port =
        endpoint.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !endpoint.ends_with(']'));
    let endpoint = if has_port { endpoint.to_owned() } else { format!("{endpoint}:{PORT}") };
    Ok(Discovery::Token { endpoint, token, pins })
}

fn is_pin(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.chars().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> JoinFlags {
        JoinFlags {
            endpoint: Some("lb".to_owned()),
            token: "abcdef.0123456789abcdef".parse().ok(),
            discovery_token_ca_cert_hash: vec![format!("sha256:{}", "0a".repeat(32))],
            ..JoinFlags::default()
        }
    }

    #[test]
    fn a_token_finds_the_cluster_at_its_endpoint() {
        for (given, expected) in [("lb", "lb:6443"), ("https://lb:7443", "lb:7443"), ("[fd00::1]", "[fd00::1]:6443")] {
            let found = discovery(&JoinFlags { endpoint: Some(given.to_owned()), ..flags() }).unwrap();
            let Discovery::Token { endpoint, pins, .. } = found else { panic!("{found:?}") };
            assert_eq!((endpoint.as_str(), pins.len()), (expected, 1));
        }
    }

    const FILE: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 'lb:7443', unsafeSkipCAVerification: true}
nodeRegistration:
  name: from-file
  taints: [{key: dedicated, value: gpu, effect: NoSchedule}]
  kubeletExtraArgs: [{name: v, value: '2'}]
controlPlane:
  localAPIEndpoint: {advertiseAddress: 192.0.2.9, bindPort: 6444}
timeouts: {discovery: 1m0s, upgradeManifests: 5m0s}
skipPhases: [preflight]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
";

    fn from_file(text: &str, change: impl FnOnce(&mut JoinFlags)) -> Result<JoinSettings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("join.yaml");
        std::fs::write(&path, text).unwrap();
        let mut flags = JoinFlags { config: Some(path), ..JoinFlags::default() };
        change(&mut flags);
        let text = |error: ConfigurationError| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        };
        JoinSettings::new(flags).map_err(text)
    }

    #[test]
    fn a_file_says_all_and_flags_win() {
        let settings = from_file(FILE, |_| {}).unwrap();
        let own = settings.control_plane.clone().unwrap();
        assert_eq!((settings.node_name.as_str(), settings.node_ip.to_string().as_str()), ("from-file", "192.0.2.9"));
        assert_eq!((own.bind_port, settings.api_host().as_deref()), (6444, Some("lb")));
        assert_eq!(settings.discovery_patience, Duration::from_secs(60));
        assert_eq!(settings.tls_bootstrap_token.map(|token| token.id().to_owned()).as_deref(), Some("abcdef"));
        assert_eq!(settings.skip_phases, ["preflight"]);
        assert_eq!((settings.taints.len(), settings.control_plane_taints.map(|taints| taints.len())), (0, Some(1)));
        assert_eq!(settings.without_effect, ["JoinConfiguration.timeouts.upgradeManifests", "ClusterConfiguration"]);
        let flags = |flags: &mut JoinFlags| {
            flags.node_name = Some("n1".to_owned());
            flags.endpoint = Some("other".to_owned());
        };
        let settings = from_file(FILE, flags).unwrap();
        assert_eq!((settings.node_name.as_str(), settings.api_host().as_deref()), ("n1", Some("other")));
        let worker =
            FILE.replace("controlPlane:\n  localAPIEndpoint: {advertiseAddress: 192.0.2.9, bindPort: 6444}\n", "");
        let settings = from_file(&worker, |flags| flags.node_ip = Some([192, 0, 2, 9].into())).unwrap();
        assert!(settings.control_plane.is_none());
        assert_eq!(settings.taints, ["dedicated=gpu:NoSchedule"]);
    }

    #[test]
    fn what_a_file_lacks_or_has_too_much_is_named() {
        let check = |text: &str, expected: &str| {
            let error = from_file(text, |_| {}).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&FILE.replace("skipPhases", "skipPhasess"), "unknown field `skipPhasess`");
        check(&FILE.replace("discovery: 1m0s", "discovery: soon"), "timeouts.discovery: \"soon\" is no duration");
        check(&FILE.replace("abcdef.0123456789abcdef", "nonsense"), "discovery.bootstrapToken.token");
        check(&FILE.replace("effect: NoSchedule", "value: b").replace("controlPlane:", "#"), "is not understood");
        check("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n", "no JoinConfiguration found");
    }

    #[test]
    fn what_is_missing_or_unsafe_is_said() {
        let check = |flags: JoinFlags, expected: &str| {
            let error = discovery(&flags).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(JoinFlags::default(), "bootstrapToken or file must be set");
        check(JoinFlags { endpoint: None, ..flags() }, "name the API server");
        check(JoinFlags { discovery_token_ca_cert_hash: Vec::new(), ..flags() }, "can be unsafe");
        check(
            JoinFlags { discovery_token_ca_cert_hash: vec!["sha256:1".to_owned()], ..flags() },
            "64 hexadecimal digits",
        );
        check(JoinFlags { discovery_file: Some("/none".into()), ..flags() }, "/none: No such file");
        let both = JoinFlags { discovery_token: flags().token, discovery_file: Some("/none".into()), ..flags() };
        check(both, "cannot both be set");
        let unsafe_flags = JoinFlags {
            discovery_token_ca_cert_hash: Vec::new(),
            discovery_token_unsafe_skip_ca_verification: true,
            ..flags()
        };
        assert!(discovery(&unsafe_flags).is_ok());
    }
}
