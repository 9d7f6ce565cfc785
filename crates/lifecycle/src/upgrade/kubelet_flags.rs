//! The flags of a machine's kubelet: those that `kedge init` and `kedge join` write now, where an older version of them wrote
//! fewer. The balancer's come with the way to it in the kubelet's kubeconfig.
//!
//! Invariant: a flag that is there keeps its value; nothing is written where nothing is missing.

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use kedge_pki::{KubeconfigCluster, KubeconfigUser, write_kubeconfig, write_public};

use super::journal::timestamped;
use super::kubelet::KubeletUpgrade;
use crate::cluster_configuration::Argument;
use crate::host::KUBELET_DIR;
use crate::init::PhaseError;
use crate::kubelet_service::{has_systemd_service, kubelet_flags, start_kubelet, stop_kubelet, write_kubelet_flags};
use crate::node_access;

impl KubeletUpgrade<'_> {
    /// Adds what is missing, after a copy of the old file.
    pub(super) async fn write_flags(&self) -> Result<(), PhaseError> {
        let there: Vec<Argument> = kubelet_flags(self.layout).iter().filter_map(|word| argument(word)).collect();
        let missing = missing(&there, self.wanted()?);
        if missing.is_empty() {
            return Ok(());
        }
        let path = self.layout.kubelet_flags();
        let copy = timestamped(self.layout, "kubeadm-kubelet-env", Timestamp::now()).join("kubeadm-flags.env");
        if let Ok(old) = std::fs::read(&path) {
            (self.say)(&format!("[upgrade] Backing up kubelet env file to {}", copy.display()));
            write_public(&copy, &old)?;
        }
        let names: Vec<String> = missing.iter().map(|flag| format!("--{}", flag.name)).collect();
        (self.say)(&format!("[upgrade/kubelet-config] Adding flags of the kubelet: {}", names.join(" ")));
        if let Some(balancer) = self.balancer.filter(|_| missing.iter().any(|flag| flag.name == "api-balancer")) {
            self.ensure_place(balancer).await?;
            self.go_through(balancer)?;
        }
        Ok(write_kubelet_flags(self.layout, &there, &missing, self.say)?)
    }

    /// The kubelet that runs may have a balancer there already.
    async fn ensure_place(&self, balancer: SocketAddr) -> Result<(), PhaseError> {
        // There it is a person who restarts it.
        if has_systemd_service() {
            return Ok(());
        }
        stop_kubelet(self.layout).await?;
        if let Err(why) = node_access::ensure_free(Some(balancer)) {
            start_kubelet(self.layout, self.say).await?;
            return Err(PhaseError::Missing(why));
        }
        Ok(())
    }

    /// What is written for a machine like this one today.
    fn wanted(&self) -> Result<Vec<Argument>, PhaseError> {
        let flag = |name: &str, value: String| Argument { name: name.to_owned(), value };
        let mut wanted = vec![flag("hostname-override", self.host.node_name.clone())];
        let local = self.host.control_plane.as_ref().map(|own| own.local);
        wanted.extend(local.map(|local| flag("node-ip", local.advertise_address.to_string())));
        let mut seeds: Vec<String> = local.map(|local| local.host_port()).into_iter().collect();
        match local {
            Some(local) => seeds.push(self.cluster.endpoint(&local)),
            None => {
                let server = KubeconfigCluster::read(&self.layout.kubeconfig("kubelet.conf"))?.server;
                let is_balancer = self.balancer.is_some_and(|balancer| server.ends_with(&balancer.to_string()));
                seeds.extend((!is_balancer).then_some(server));
                seeds.extend(shared_endpoint(&self.cluster.control_plane_endpoint));
            }
        }
        if self.balancer.is_some() && seeds.is_empty() {
            (self.say)(
                "[upgrade/kubelet-config] WARNING: the cluster has no shared endpoint by which the balancer of this node \
                 could find it: its kubelet keeps its way to the API server",
            );
            return Ok(wanted);
        }
        wanted.extend(node_access::kubelet_flags(self.balancer, &seeds));
        Ok(wanted)
    }

    /// Has the kubelet ask its balancer, once it keeps its certificate in files.
    fn go_through(&self, balancer: SocketAddr) -> Result<(), PhaseError> {
        let current = Path::new(KUBELET_DIR).join("pki/kubelet-client-current.pem");
        if !self.layout.at(&current).exists() {
            return Ok(());
        }
        let path = self.layout.kubeconfig("kubelet.conf");
        let cluster = node_access::through(Some(balancer), KubeconfigCluster::read(&path)?);
        let user = KubeconfigUser::Files { certificate: current.clone(), key: current };
        let name = format!("system:node:{}", self.host.node_name);
        Ok(write_kubeconfig(&path, &self.cluster.cluster_name, &name, &cluster, &user)?)
    }
}

/// A word like `--name=value`.
fn argument(word: &str) -> Option<Argument> {
    let (name, value) = word.strip_prefix("--")?.split_once('=').unwrap_or((word.trim_start_matches("--"), "true"));
    Some(Argument { name: name.to_owned(), value: value.to_owned() })
}

fn missing(there: &[Argument], wanted: Vec<Argument>) -> Vec<Argument> {
    wanted.into_iter().filter(|flag| !there.iter().any(|known| known.name == flag.name)).collect()
}

/// `host:port` of the endpoint that all control planes share.
fn shared_endpoint(configured: &str) -> Option<String> {
    let configured = configured.trim_start_matches("https://");
    match configured.rsplit_once(':') {
        _ if configured.is_empty() => None,
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            Some(configured.to_owned())
        }
        _ if configured.contains(':') && !configured.starts_with('[') => Some(format!("[{configured}]:6443")),
        _ => Some(format!("{configured}:6443")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let flag = |text: &str| argument(text).unwrap();
        let there = [flag("--node-ip=192.0.2.9"), flag("--v=2"), flag("--fail-swap-on")];
        let wanted = vec![flag("--hostname-override=n1"), flag("--node-ip=192.0.2.2"), flag("--api-balancer=a:1")];
        let added = missing(&there, wanted);
        assert_eq!(added, [flag("--hostname-override=n1"), flag("--api-balancer=a:1")]);
        assert_eq!(there[2].value, "true");
        assert_eq!(argument("word"), None);
    }

    #[test]
    fn a_shared_endpoint_has_a_port() {
        for (given, expected) in [
            ("", None),
            ("lb", Some("lb:6443")),
            ("https://lb:7443", Some("lb:7443")),
            ("fd00::1", Some("[fd00::1]:6443")),
            ("[fd00::1]:443", Some("[fd00::1]:443")),
        ] {
            assert_eq!(shared_endpoint(given).as_deref(), expected, "{given}");
        }
    }
}
