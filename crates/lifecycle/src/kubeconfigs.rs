//! The kubeconfigs of a control plane: kubeadm's files and users.
//!
//! Invariant: a file that is there and fits the authority stays as it is.

use std::path::Path;
use std::time::Duration;

use kedge_pki::{
    CertificateAuthority, KubeconfigCluster, KubeconfigUser, LeafRequest, PkiError, kubeconfig_identity,
    write_kubeconfig,
};

use crate::Say;
use crate::certs::{check_brought, is_keyless};
use crate::host::HostLayout;

/// What kubeconfigs are made of.
#[derive(Debug, Clone)]
pub struct KubeconfigFacts<'a> {
    /// The cluster's name.
    pub cluster_name: &'a str,
    /// `host:port` under which all control planes are reached.
    pub endpoint: String,
    /// `host:port` of this one.
    pub local: String,
    /// The node's name.
    pub node_name: &'a str,
    /// How long their certificates are good, where that is not the usual time.
    pub lifetime: Option<Duration>,
}

/// The files, as `kedge init phase kubeconfig` names their phases.
pub const KUBECONFIGS: [(&str, &str); 5] = [
    ("admin", "admin.conf"),
    ("super-admin", "super-admin.conf"),
    ("kubelet", "kubelet.conf"),
    ("controller-manager", "controller-manager.conf"),
    ("scheduler", "scheduler.conf"),
];

/// Writes those kubeconfigs of [`KUBECONFIGS`] that are asked for, by the names of their phases.
pub fn ensure_kubeconfigs(
    facts: &KubeconfigFacts<'_>,
    layout: &HostLayout,
    wanted: &[&str],
    say: Say<'_>,
) -> Result<(), PkiError> {
    say(&format!("[kubeconfig] Using kubeconfig folder \"{}\"", crate::host::KUBERNETES_DIR));
    if is_keyless(&layout.pki(), "ca") {
        return check_brought_along(layout, wanted, say);
    }
    let authority = CertificateAuthority::ensure(&layout.pki(), "ca", "kubernetes")?;
    let authority = match facts.lifetime {
        Some(lifetime) => authority.with_leaf_lifetime(lifetime),
        None => authority,
    };
    for (_, file) in KUBECONFIGS.iter().filter(|(phase, _)| wanted.contains(phase)) {
        let path = layout.kubeconfig(file);
        if is_of(&path, &authority) {
            say(&format!("[kubeconfig] Using existing kubeconfig file: \"{}\"", path.display()));
            continue;
        }
        say(&format!("[kubeconfig] Writing \"{file}\" kubeconfig file"));
        let (user, server, request) = plan(file, facts);
        let authority_pem = authority.certificate_pem().to_owned();
        let cluster = KubeconfigCluster { server, authority_pem, tls_server_name: None };
        let identity = KubeconfigUser::Embedded(authority.issue(&request)?);
        write_kubeconfig(&path, facts.cluster_name, &user, &cluster, &identity)?;
    }
    Ok(())
}

/// Kubeconfigs cannot be made where the authority's key is kept elsewhere: the user brings them.
fn check_brought_along(layout: &HostLayout, wanted: &[&str], say: Say<'_>) -> Result<(), PkiError> {
    let authority = std::fs::read_to_string(layout.pki().join("ca.crt")).unwrap_or_default();
    for (_, file) in KUBECONFIGS.iter().filter(|(phase, _)| wanted.contains(phase)) {
        let path = layout.kubeconfig(file);
        // Only whoever has it needs it.
        if *file == "super-admin.conf" && !path.exists() {
            continue;
        }
        let refuse = |why: String| PkiError::Refused {
            name: (*file).to_owned(),
            why: format!("invalid or incomplete external CA: the key of ca is not here, and {why}"),
        };
        let identity = match path.exists() {
            true => kubeconfig_identity(&path)?,
            false => None,
        };
        let identity = identity.ok_or_else(|| refuse(format!("{} is not there", path.display())))?;
        check_brought(&identity, &authority).map_err(refuse)?;
        say(&format!("[kubeconfig] External CA mode: Using user provided {file}"));
    }
    Ok(())
}

/// The user, the server and the certificate of a file.
fn plan(file: &str, facts: &KubeconfigFacts<'_>) -> (String, String, LeafRequest) {
    let (shared, own) = (format!("https://{}", facts.endpoint), format!("https://{}", facts.local));
    let client = LeafRequest::client;
    match file {
        "admin.conf" => {
            let user = "kubernetes-admin";
            (user.to_owned(), shared, client(user, &["kubeadm:cluster-admins"]))
        }
        "super-admin.conf" => {
            let user = "kubernetes-super-admin";
            (user.to_owned(), shared, client(user, &["system:masters"]))
        }
        "kubelet.conf" => {
            let user = format!("system:node:{}", facts.node_name);
            // The first kubelet starts before there is a balancer's other end, and finds its own API server.
            (user.clone(), own, client(&user, &["system:nodes"]))
        }
        "controller-manager.conf" => {
            let user = "system:kube-controller-manager";
            (user.to_owned(), own, client(user, &[]))
        }
        _ => {
            let user = "system:kube-scheduler";
            (user.to_owned(), own, client(user, &[]))
        }
    }
}

fn is_of(path: &Path, authority: &CertificateAuthority) -> bool {
    KubeconfigCluster::read(path).is_ok_and(|found| found.authority_pem.trim() == authority.certificate_pem().trim())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn files_are_written_once_and_for_their_users() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let facts = KubeconfigFacts {
            cluster_name: "kubernetes",
            endpoint: "lb.example:6443".to_owned(),
            local: "192.0.2.2:6443".to_owned(),
            node_name: "n1",
            lifetime: None,
        };
        let lines = Mutex::new(Vec::new());
        let say = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let all = KUBECONFIGS.map(|(phase, _)| phase);
        ensure_kubeconfigs(&facts, &layout, &all, &say).unwrap();
        let admin = std::fs::read_to_string(layout.kubeconfig("admin.conf")).unwrap();
        for text in ["https://lb.example:6443", "kubernetes-admin@kubernetes", "name: kubernetes-admin"] {
            assert!(admin.contains(text), "{text} is not in\n{admin}");
        }
        let scheduler = std::fs::read_to_string(layout.kubeconfig("scheduler.conf")).unwrap();
        assert!(scheduler.contains("https://192.0.2.2:6443"), "{scheduler}");
        lines.lock().unwrap().clear();
        ensure_kubeconfigs(&facts, &layout, &all, &say).unwrap();
        let said = lines.lock().unwrap().clone();
        assert_eq!(said.iter().filter(|line| line.contains("Using existing")).count(), 5, "{said:#?}");
        // With the authority's key elsewhere they are the user's.
        std::fs::remove_file(layout.pki().join("ca.key")).unwrap();
        lines.lock().unwrap().clear();
        ensure_kubeconfigs(&facts, &layout, &all, &say).unwrap();
        let said = lines.lock().unwrap().clone();
        assert!(
            said.contains(&"[kubeconfig] External CA mode: Using user provided admin.conf".to_owned()),
            "{said:#?}"
        );
        std::fs::remove_file(layout.kubeconfig("scheduler.conf")).unwrap();
        let error = ensure_kubeconfigs(&facts, &layout, &all, &say).unwrap_err().to_string();
        assert!(error.contains("scheduler.conf is not there"), "{error}");
    }
}
