//! The certificates of a control plane: kubeadm's files, names and purposes.
//!
//! Invariant: an authority and the service-account key that exist are never replaced; a leaf is made anew only where it
//! does not serve any more. Of an authority whose key is kept elsewhere, all leaves have to be there.

use std::net::IpAddr;
use std::path::Path;

use kedge_pki::{CertificateAuthority, Identity, LeafRequest, PkiError, ensure_service_account_key, signer_in};

use crate::Say;
use crate::cluster_configuration::{ClusterConfiguration, LocalEndpoint};
use crate::host::HostLayout;

/// What certificates are made of.
#[derive(Debug, Clone)]
pub struct CertificateFacts<'a> {
    /// What the control planes share.
    pub cluster: &'a ClusterConfiguration,
    /// This one's own endpoint.
    pub local: LocalEndpoint,
    /// The node's name.
    pub node_name: &'a str,
    /// The first address of each Service range.
    pub api_service_ips: Vec<IpAddr>,
    /// Whether the API server keeps objects in files of its own.
    pub embedded_store: bool,
}

/// One leaf: its authority, its file, what it says.
struct Leaf {
    authority: &'static str,
    name: &'static str,
    request: LeafRequest,
}

/// The parts of the phase, as `kedge init phase certs` names them.
pub const CERTIFICATES: [&str; 11] = [
    "ca",
    "apiserver",
    "apiserver-kubelet-client",
    "front-proxy-ca",
    "front-proxy-client",
    "etcd-ca",
    "etcd-server",
    "etcd-peer",
    "etcd-healthcheck-client",
    "apiserver-etcd-client",
    "sa",
];

/// Makes what is missing; `part` for one of [`CERTIFICATES`] only.
pub fn ensure_certificates(
    facts: &CertificateFacts<'_>,
    layout: &HostLayout,
    part: Option<&str>,
    say: Say<'_>,
) -> Result<(), PkiError> {
    let dir = layout.pki();
    say(&format!("[certs] Using certificateDir folder \"{}\"", layout.certificates_dir().display()));
    let wanted = |name: &str| part.is_none_or(|part| part == name.replace('/', "-"));
    let own_etcd = facts.cluster.etcd.external.is_none() && !facts.embedded_store;
    for (name, common_name) in [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")] {
        let is_etcds = name.starts_with("etcd/");
        if is_etcds && !own_etcd {
            if facts.cluster.etcd.external.is_some() && wanted(name) {
                say(&format!("[certs] External etcd mode: Skipping {name} certificate authority generation"));
            }
            continue;
        }
        let leaves = leaves(facts).into_iter().filter(|leaf| leaf.authority == name).collect::<Vec<_>>();
        if !wanted(name) && !leaves.iter().any(|leaf| wanted(leaf.name)) {
            continue;
        }
        let authority = match is_keyless(&dir, name) {
            true => None,
            false => Some(ensure_authority(&dir, (name, common_name), facts.cluster, say)?),
        };
        if authority.is_none() {
            say(&format!("[certs] Using existing {name} keyless certificate authority"));
        }
        for leaf in leaves.iter().filter(|leaf| wanted(leaf.name)) {
            match &authority {
                Some(authority) => ensure_leaf(authority, &dir, leaf, say)?,
                None => check_leaf(&dir, name, leaf.name, say)?,
            }
        }
    }
    if wanted("sa") {
        match dir.join("sa.key").exists() {
            true => say("[certs] Using the existing \"sa\" key"),
            false => say("[certs] Generating \"sa\" key and public key"),
        }
        ensure_service_account_key(&dir)?;
    }
    Ok(())
}

/// Whether an authority's certificate is here, and its key kept elsewhere.
pub(crate) fn is_keyless(dir: &Path, name: &str) -> bool {
    dir.join(format!("{name}.crt")).exists() && !dir.join(format!("{name}.key")).exists()
}

/// A leaf that the user has to bring, because it cannot be made here.
fn check_leaf(dir: &Path, authority: &str, name: &str, say: Say<'_>) -> Result<(), PkiError> {
    let read = |name: &str, end: &str| std::fs::read_to_string(dir.join(format!("{name}.{end}"))).unwrap_or_default();
    let leaf = Identity { certificate_pem: read(name, "crt"), key_pem: read(name, "key") };
    check_brought(&leaf, &read(authority, "crt")).map_err(|why| PkiError::Refused {
        name: name.to_owned(),
        why: format!("invalid or incomplete external CA: the key of {authority} is not here, and {why}"),
    })?;
    say(&format!("[certs] Using existing {name} certificate and key on disk"));
    Ok(())
}

/// Whether a certificate that was brought along can be used.
pub(crate) fn check_brought(identity: &Identity, authority_pem: &str) -> Result<(), String> {
    identity.check().map_err(|why| format!("certificate and key are not there or no pair ({why})"))?;
    if signer_in(authority_pem, &identity.certificate_pem).is_none() {
        return Err("the certificate is not signed by it".to_owned());
    }
    let facts = kedge_pki::CertificateFacts::read(&identity.certificate_pem)?;
    match facts.has_expired(jiff::Timestamp::now()) {
        true => Err(format!("the certificate has expired at {}", facts.not_after)),
        false => Ok(()),
    }
}

fn ensure_authority(
    dir: &Path,
    (name, common_name): (&str, &str),
    cluster: &ClusterConfiguration,
    say: Say<'_>,
) -> Result<CertificateAuthority, PkiError> {
    match dir.join(format!("{name}.crt")).exists() {
        true => say(&format!("[certs] Using existing {name} certificate authority")),
        false => say(&format!("[certs] Generating \"{name}\" certificate and key")),
    }
    let authority = match &cluster.ca_certificate_validity_period {
        Some(period) => CertificateAuthority::ensure_for(dir, name, common_name, period.length())?,
        None => CertificateAuthority::ensure(dir, name, common_name)?,
    };
    Ok(match &cluster.certificate_validity_period {
        Some(period) => authority.with_leaf_lifetime(period.length()),
        None => authority,
    })
}

fn ensure_leaf(authority: &CertificateAuthority, dir: &Path, leaf: &Leaf, say: Say<'_>) -> Result<(), PkiError> {
    let name = leaf.name;
    let read = || std::fs::read_to_string(dir.join(format!("{name}.crt"))).ok();
    let before = read();
    authority.ensure_leaf(dir, name, &leaf.request)?;
    if before.is_some() && before == read() {
        say(&format!("[certs] Using existing {name} certificate and key on disk"));
        return Ok(());
    }
    say(&format!("[certs] Generating \"{name}\" certificate and key"));
    if !leaf.request.dns_names.is_empty() {
        let addresses: Vec<String> = leaf.request.addresses.iter().map(ToString::to_string).collect();
        say(&format!(
            "[certs] {name} serving cert is signed for DNS names [{}] and IPs [{}]",
            leaf.request.dns_names.join(" "),
            addresses.join(" ")
        ));
    }
    Ok(())
}

fn leaves(facts: &CertificateFacts<'_>) -> Vec<Leaf> {
    let leaf = |authority, name, request| Leaf { authority, name, request };
    let admins = &["kubeadm:cluster-admins"];
    let etcd = facts.cluster.local_etcd().unwrap_or_default();
    vec![
        leaf("ca", "apiserver", apiserver(facts)),
        leaf("ca", "apiserver-kubelet-client", LeafRequest::client("kube-apiserver-kubelet-client", admins)),
        leaf("front-proxy-ca", "front-proxy-client", LeafRequest::client("front-proxy-client", &[])),
        leaf("etcd/ca", "etcd/server", etcd_server(facts, &etcd.server_cert_sans)),
        leaf("etcd/ca", "etcd/peer", etcd_server(facts, &etcd.peer_cert_sans)),
        leaf("etcd/ca", "etcd/healthcheck-client", LeafRequest::client("kube-etcd-healthcheck-client", &[])),
        leaf("etcd/ca", "apiserver-etcd-client", LeafRequest::client("kube-apiserver-etcd-client", &[])),
    ]
}

fn apiserver(facts: &CertificateFacts<'_>) -> LeafRequest {
    let domain = &facts.cluster.networking.dns_domain;
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(facts.node_name.to_owned());
    let mut addresses = facts.api_service_ips.clone();
    addresses.push(facts.local.advertise_address);
    // So that what runs on the machine finds it without a name.
    addresses.push(IpAddr::from([127, 0, 0, 1]));
    let more = facts.cluster.endpoint_host().into_iter().chain(facts.cluster.api_server.cert_sans.iter().cloned());
    sort_in(more, &mut names, &mut addresses);
    LeafRequest::server("kube-apiserver", names, addresses)
}

fn etcd_server(facts: &CertificateFacts<'_>, more: &[String]) -> LeafRequest {
    let mut names = vec![facts.node_name.to_owned(), "localhost".to_owned()];
    let mut addresses =
        vec![facts.local.advertise_address, IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    sort_in(more.iter().cloned(), &mut names, &mut addresses);
    LeafRequest::server(facts.node_name, names, addresses).for_peers()
}

/// Names to names, addresses to addresses, each once.
fn sort_in(more: impl Iterator<Item = String>, names: &mut Vec<String>, addresses: &mut Vec<IpAddr>) {
    for one in more {
        match one.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(one),
        }
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn all_files_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let cluster = ClusterConfiguration {
            control_plane_endpoint: "lb.example:6443".to_owned(),
            ..ClusterConfiguration::default()
        };
        let facts = CertificateFacts {
            cluster: &cluster,
            local: LocalEndpoint { advertise_address: "192.0.2.2".parse().unwrap(), bind_port: 6443 },
            node_name: "n1",
            api_service_ips: vec!["10.96.0.1".parse().unwrap()],
            embedded_store: false,
        };
        let lines = Mutex::new(Vec::new());
        let say = |line: &str| lines.lock().unwrap().push(line.to_owned());
        ensure_certificates(&facts, &layout, None, &say).unwrap();
        let said = std::mem::take(&mut *lines.lock().unwrap());
        let signed = "[certs] apiserver serving cert is signed for DNS names [kubernetes kubernetes.default \
            kubernetes.default.svc kubernetes.default.svc.cluster.local n1 lb.example] and IPs [10.96.0.1 192.0.2.2 \
            127.0.0.1]";
        assert!(said.iter().any(|line| line == signed), "{said:#?}");
        for name in ["ca", "apiserver", "etcd/ca", "etcd/peer", "etcd/healthcheck-client", "front-proxy-client"] {
            assert!(layout.pki().join(format!("{name}.crt")).exists(), "{name}");
        }
        assert!(layout.pki().join("sa.pub").exists());
        ensure_certificates(&facts, &layout, None, &say).unwrap();
        let again = lines.lock().unwrap().clone();
        assert!(!again.iter().any(|line| line.contains("Generating")), "{again:#?}");
    }

    #[test]
    fn an_authority_without_its_key_wants_all_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let cluster = ClusterConfiguration::default();
        let facts = CertificateFacts {
            cluster: &cluster,
            local: LocalEndpoint { advertise_address: "192.0.2.2".parse().unwrap(), bind_port: 6443 },
            node_name: "n1",
            api_service_ips: Vec::new(),
            embedded_store: true,
        };
        let ensure = || ensure_certificates(&facts, &layout, None, &|_| {});
        ensure().unwrap();
        let before = std::fs::read(layout.pki().join("apiserver.crt")).unwrap();
        std::fs::remove_file(layout.pki().join("ca.key")).unwrap();
        ensure().unwrap();
        assert_eq!(std::fs::read(layout.pki().join("apiserver.crt")).unwrap(), before);
        let other = CertificateAuthority::ensure(dir.path(), "other", "kubernetes").unwrap();
        let foreign = other.issue(&LeafRequest::server("kube-apiserver", Vec::new(), Vec::new())).unwrap();
        std::fs::write(layout.pki().join("apiserver.crt"), foreign.certificate_pem).unwrap();
        std::fs::write(layout.pki().join("apiserver.key"), foreign.key_pem).unwrap();
        let error = ensure().unwrap_err().to_string();
        assert!(error.contains("external CA") && error.contains("not signed by it"), "{error}");
        std::fs::remove_file(layout.pki().join("apiserver.crt")).unwrap();
        assert!(ensure().unwrap_err().to_string().contains("are not there"), "{error}");
    }
}
