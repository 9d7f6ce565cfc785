//! What `kedge init` was asked for: flags, the configuration file, and what follows from both.
//!
//! Invariant: flags win over the file, the file over defaults; everything is checked before anything is changed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use kedge_bootstrap::{BootstrapToken, CertificateKey, TokenSpec};
use kedge_meta::KUBERNETES_VERSION;
use serde_json::{Map, Value};

use crate::addresses::{find_node_ip, hostname, nth_address};
use crate::cluster_configuration::{Argument, ClusterConfiguration, LocalEndpoint};
use crate::cluster_objects::control_plane_taint;
use crate::documents::{ApiEndpoint, ConfigurationError, Documents, TokenConfiguration};
use crate::health_wait::HealthPatience;
use crate::node_access;
use crate::timeouts::parse_duration;

/// Flags, as they were given; each has the name of its field.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names are the flags', which say themselves what they are for")]
pub struct InitFlags {
    pub config: Option<PathBuf>,
    pub control_plane_endpoint: Option<String>,
    pub upload_certs: bool,
    pub certificate_key: Option<CertificateKey>,
    pub pod_network_cidr: Option<String>,
    pub service_cidr: Option<String>,
    pub service_dns_domain: Option<String>,
    pub apiserver_advertise_address: Option<IpAddr>,
    pub apiserver_bind_port: Option<u16>,
    pub apiserver_cert_extra_sans: Vec<String>,
    pub cert_dir: Option<String>,
    pub cri_socket: Option<String>,
    pub node_name: Option<String>,
    pub kubernetes_version: Option<String>,
    pub ignore_preflight_errors: Vec<String>,
    pub skip_phases: Vec<String>,
    pub token: Option<BootstrapToken>,
    pub token_ttl: Option<String>,
    pub skip_token_print: bool,
    pub skip_certificate_key_print: bool,
    pub dry_run: bool,
    pub fix: bool,
    pub embedded_store: bool,
    pub with_network: bool,
    pub network_flags: Vec<String>,
    pub api_balancer: Option<String>,
    pub kubeconfig: Option<PathBuf>,
    pub patches: Option<PathBuf>,
}

/// The same, complete.
#[derive(Debug, Clone)]
pub struct InitSettings {
    /// What all control planes share.
    pub cluster: ClusterConfiguration,
    /// Fields of the kubelets' configuration that the user gave.
    pub kubelet: Map<String, Value>,
    /// Fields of the proxies' configuration that the user gave.
    pub proxy: Map<String, Value>,
    /// How long what is started may take to become well.
    pub patience: HealthPatience,
    /// What in the file has no effect.
    pub without_effect: Vec<String>,
    /// The node's name.
    pub node_name: String,
    /// This control plane's endpoint.
    pub local: LocalEndpoint,
    /// The container runtime's socket; found where absent.
    pub cri_socket: Option<String>,
    /// Ranges of Services.
    pub service_ranges: Vec<IpNet>,
    /// Ranges of pods.
    pub pod_ranges: Vec<IpNet>,
    /// Taints of the node.
    pub taints: Vec<Value>,
    /// Flags of the kubelet.
    pub kubelet_extra_args: Vec<Argument>,
    /// Tokens to make.
    pub tokens: Vec<TokenSpec>,
    /// The key for the transfer of certificates.
    pub certificate_key: CertificateKey,
    /// Checks whose errors are warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// Whether certificates are uploaded.
    pub upload_certs: bool,
    /// Whether tokens are not printed.
    pub skip_token_print: bool,
    /// Whether the key is not printed.
    pub skip_certificate_key_print: bool,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Whether the machine is mended.
    pub fix: bool,
    /// Whether the API server keeps objects itself.
    pub embedded_store: bool,
    /// Whether the pod network is applied.
    pub with_network: bool,
    /// Flags of its agent.
    pub network_flags: Vec<String>,
    /// Where each node's balancer listens; nodes have none where absent.
    pub api_balancer: Option<SocketAddr>,
    /// The administrator's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Where patches to what is written are.
    pub patches: Option<PathBuf>,
}

fn wrong(field: &str, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Value { field: field.to_owned(), why: why.into() }
}

impl InitSettings {
    /// Reads the file and looks at the machine for what nobody said.
    pub fn new(flags: InitFlags) -> Result<Self, ConfigurationError> {
        let documents = match &flags.config {
            None => Documents::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Documents::read(&text.map_err(|error| wrong("--config", format!("{}: {error}", path.display())))?)?
            }
        };
        let Documents { init, join, cluster, kubelet, proxy, mut without_effect, .. } = documents;
        without_effect.extend(join.map(|_| "JoinConfiguration".to_owned()));
        let cluster = merged(cluster, &flags)?;
        let registration = init.node_registration;
        let node_name = match flags.node_name.clone().or_else(|| text(&registration.name)) {
            Some(name) => name,
            None => hostname().map_err(|error| wrong("--node-name", error.to_string()))?,
        };
        let service_ranges = ranges("--service-cidr", &cluster.networking.service_subnet)?;
        let pod_ranges = ranges("--pod-network-cidr", &cluster.networking.pod_subnet)?;
        if service_ranges.is_empty() {
            return Err(wrong("--service-cidr", "a range like 10.96.0.0/12 is expected"));
        }
        Ok(Self {
            local: local(&flags, &init.local_api_endpoint)?,
            patience: init.timeouts.health()?,
            cri_socket: flags.cri_socket.clone().or_else(|| text(&registration.cri_socket)),
            taints: registration.taints.unwrap_or_else(|| vec![control_plane_taint()]),
            kubelet_extra_args: registration.kubelet_extra_args,
            tokens: tokens(&flags, &init.bootstrap_tokens)?,
            certificate_key: certificate_key(&flags, &init.certificate_key)?,
            ignore_preflight_errors: [flags.ignore_preflight_errors, registration.ignore_preflight_errors].concat(),
            skip_phases: if flags.skip_phases.is_empty() { init.skip_phases } else { flags.skip_phases },
            upload_certs: flags.upload_certs,
            skip_token_print: flags.skip_token_print,
            skip_certificate_key_print: flags.skip_certificate_key_print,
            dry_run: flags.dry_run || init.dry_run,
            fix: flags.fix,
            embedded_store: flags.embedded_store,
            with_network: flags.with_network,
            network_flags: flags.network_flags,
            api_balancer: node_access::parse(flags.api_balancer.as_deref())?,
            kubeconfig: flags.kubeconfig,
            patches: flags.patches.or_else(|| init.patches.directory()),
            cluster,
            kubelet,
            proxy,
            without_effect,
            node_name,
            service_ranges,
            pod_ranges,
        })
    }

    /// The nth address of every Service range: the first is the API's, the tenth DNS's.
    pub fn service_ips(&self, nth: u32) -> Vec<IpAddr> {
        self.service_ranges.iter().filter_map(|range| nth_address(range, nth)).collect()
    }

    /// `host:port` under which all control planes are reached.
    pub fn endpoint(&self) -> String {
        self.cluster.endpoint(&self.local)
    }

    /// Whether this machine runs a member of an etcd.
    pub fn has_own_etcd(&self) -> bool {
        self.cluster.local_etcd().is_some() && !self.embedded_store
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Flags win over the file.
fn merged(mut cluster: ClusterConfiguration, flags: &InitFlags) -> Result<ClusterConfiguration, ConfigurationError> {
    let take = |flag: &Option<String>, field: &mut String| {
        if let Some(value) = flag {
            field.clone_from(value);
        }
    };
    take(&flags.control_plane_endpoint, &mut cluster.control_plane_endpoint);
    take(&flags.pod_network_cidr, &mut cluster.networking.pod_subnet);
    take(&flags.service_cidr, &mut cluster.networking.service_subnet);
    take(&flags.service_dns_domain, &mut cluster.networking.dns_domain);
    take(&flags.cert_dir, &mut cluster.certificates_dir);
    take(&flags.kubernetes_version, &mut cluster.kubernetes_version);
    cluster.api_server.cert_sans.extend(flags.apiserver_cert_extra_sans.iter().cloned());
    let asked = std::mem::replace(&mut cluster.kubernetes_version, KUBERNETES_VERSION.to_owned());
    let minor = |version: &str| version.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>().join(".");
    let is_symbolic = asked.is_empty() || asked.starts_with("stable");
    if !is_symbolic && minor(&asked) != minor(KUBERNETES_VERSION) {
        return Err(wrong(
            "kubernetesVersion",
            format!("{asked} is not what this binary serves: {KUBERNETES_VERSION}"),
        ));
    }
    if flags.embedded_store && cluster.etcd.external.is_some() {
        return Err(wrong("--store", "an external etcd and the embedded store exclude each other"));
    }
    Ok(cluster)
}

fn local(flags: &InitFlags, file: &ApiEndpoint) -> Result<LocalEndpoint, ConfigurationError> {
    let field = "localAPIEndpoint.advertiseAddress";
    let named = text(&file.advertise_address)
        .map(|address| address.parse().map_err(|_| wrong(field, format!("{address:?} is no address"))));
    let advertise_address = match flags.apiserver_advertise_address.or(named.transpose()?) {
        Some(address) => address,
        None => find_node_ip(false).map_err(|error| wrong("--apiserver-advertise-address", error.to_string()))?,
    };
    let from_file = (file.bind_port != 0).then_some(file.bind_port);
    Ok(LocalEndpoint { advertise_address, bind_port: flags.apiserver_bind_port.or(from_file).unwrap_or(6443) })
}

fn ranges(flag: &str, text: &str) -> Result<Vec<IpNet>, ConfigurationError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let bad = |part: &str| wrong(flag, format!("{part:?} is no range like 10.244.0.0/16"));
    parts.map(|part| part.parse().map_err(|_| bad(part))).collect()
}

fn certificate_key(flags: &InitFlags, file: &str) -> Result<CertificateKey, ConfigurationError> {
    let bad = |error: kedge_bootstrap::BootstrapError| wrong("certificateKey", error.to_string());
    match (&flags.certificate_key, file) {
        (Some(key), _) => Ok(key.clone()),
        (None, "") => CertificateKey::generate().map_err(bad),
        (None, text) => text.parse().map_err(bad),
    }
}

/// How long a token is good; for ever where that is nothing.
fn lifetime(text: &str) -> Result<Option<std::time::Duration>, ConfigurationError> {
    match parse_duration(text) {
        Some(ttl) if ttl.is_zero() => Ok(None),
        Some(ttl) => Ok(Some(ttl)),
        None => Err(wrong("--token-ttl", format!("{text:?} is no duration like 24h0m0s"))),
    }
}

fn tokens(flags: &InitFlags, file: &[TokenConfiguration]) -> Result<Vec<TokenSpec>, ConfigurationError> {
    if !file.is_empty() && flags.token.is_none() {
        return file.iter().map(token).collect();
    }
    let mut spec = TokenSpec::for_joining(flags.token.clone().unwrap_or_else(BootstrapToken::generate));
    spec.description = "The default bootstrap token generated by 'kubeadm init'.".to_owned();
    if let Some(ttl) = &flags.token_ttl {
        spec.ttl = lifetime(ttl)?;
    }
    Ok(vec![spec])
}

fn token(configured: &TokenConfiguration) -> Result<TokenSpec, ConfigurationError> {
    let token = match configured.token.as_str() {
        "" => BootstrapToken::generate(),
        text => text.parse().map_err(|_| wrong("bootstrapTokens.token", format!("{text:?} is no token")))?,
    };
    let mut spec = TokenSpec::for_joining(token);
    spec.description.clone_from(&configured.description);
    if let Some(ttl) = &configured.ttl {
        spec.ttl = lifetime(ttl)?;
    }
    spec.usages = configured.usages.clone().unwrap_or(spec.usages);
    spec.groups = configured.groups.clone().unwrap_or(spec.groups);
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut InitFlags)) -> Result<InitSettings, String> {
        let mut flags = InitFlags {
            apiserver_advertise_address: Some("192.0.2.2".parse().unwrap()),
            node_name: Some("n1".to_owned()),
            ..InitFlags::default()
        };
        change(&mut flags);
        InitSettings::new(flags).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_follow_from_ranges() {
        let settings = settings(|flags| flags.service_cidr = Some("10.32.0.0/16".to_owned())).unwrap();
        assert_eq!(settings.service_ips(1), ["10.32.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(settings.service_ips(10), ["10.32.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(settings.endpoint(), "192.0.2.2:6443");
        assert_eq!(settings.tokens.len(), 1);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let check = |change: &dyn Fn(&mut InitFlags), text: &str| {
            let error = settings(|flags| change(flags)).unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        check(&|flags| flags.pod_network_cidr = Some("10.244".to_owned()), "--pod-network-cidr");
        check(&|flags| flags.service_cidr = Some(String::new()), "--service-cidr");
        check(&|flags| flags.kubernetes_version = Some("v1.24.3".to_owned()), "v1.24.3 is not what this binary serves");
        check(&|flags| flags.token_ttl = Some("soon".to_owned()), "--token-ttl");
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeadm.yaml");
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {name: file}\n\
            localAPIEndpoint: {advertiseAddress: 192.0.2.9, bindPort: 7443}\nbootstrapTokens: [{ttl: 0s}]\n";
        std::fs::write(&file, text).unwrap();
        let settings = settings(|flags| flags.config = Some(file)).unwrap();
        assert_eq!((settings.node_name.as_str(), settings.local.host_port().as_str()), ("n1", "192.0.2.2:7443"));
        assert_eq!(settings.tokens[0].ttl, None);
    }
}
