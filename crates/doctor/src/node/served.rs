//! What servers of this machine show to who calls them: the certificate as it is served, and whether the API server lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kedge_bundle::served_certificate_fact;
use kedge_diagnosis::Fact;

use crate::node::flags::Flags;
use crate::node::https;
use crate::node::reading::Reading;

/// Ports of a control plane and of a node agent, but for the API server's, which is the cluster's choice.
const PORTS: [u16; 5] = [2379, 2380, 10250, 10257, 10259];

/// Asks each server that listens what it shows.
pub(super) async fn read_certificates(listening: &BTreeSet<SocketAddr>, flags: &Flags, data_dir: &Path) -> Reading {
    let mut addresses: BTreeMap<u16, SocketAddr> = BTreeMap::new();
    let api = flags.api_port();
    for address in listening.iter().filter(|address| address.port() == api || PORTS.contains(&address.port())) {
        let own = reachable(*address);
        let known = addresses.entry(own.port()).or_insert(own);
        if own.ip().is_loopback() {
            *known = own;
        }
    }
    let calls = addresses.into_iter().map(|(port, address)| {
        let path = file_of(port, flags, data_dir);
        tokio::spawn(async move { (address, path, https::shown(address).await) })
    });
    let mut reading = Reading::default();
    for call in calls.collect::<Vec<_>>() {
        match call.await {
            Ok((address, path, Ok(der))) => match served_certificate_fact(&der, &path, &address.to_string()) {
                Ok(fact) => reading.add(format!("openssl s_client -connect {address}"), fact),
                Err(why) => reading.miss(format!("certificate at {address}"), why),
            },
            Ok((address, _, Err(why))) => reading.miss(format!("certificate at {address}"), why),
            Err(error) => reading.miss("served certificates", error),
        }
    }
    reading
}

/// Asks the API server of this machine whether it lives.
pub(super) async fn read_api_server(address: SocketAddr) -> Reading {
    let mut reading = Reading::default();
    let error = match https::any_server() {
        Ok(tls) => match https::ask(address, Some(&Arc::new(tls)), "/livez", None).await {
            // Whoever is asked for a password is told that nobody is at home by no server that is down.
            Ok((200 | 401 | 403, _)) => None,
            Ok((status, body)) => Some(format!("/livez says {status}: {}", body.trim())),
            Err(error) => Some(error),
        },
        Err(error) => Some(error.to_string()),
    };
    let target = format!("https://{address}");
    reading.add(format!("curl -k {target}/livez"), Fact::Call { target, error });
    reading
}

/// How this machine calls what listens on all its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        // The table of IPv6 has sockets that take both.
        IpAddr::V6(_) if Path::new("/proc/sys/net/ipv6/conf/lo/disable_ipv6").exists() && !is_disabled() => {
            Ipv6Addr::LOCALHOST.into()
        }
        IpAddr::V6(_) => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn is_disabled() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.trim() == "1")
}

/// The file that a server should show, or nothing where it makes its own.
fn file_of(port: u16, flags: &Flags, data_dir: &Path) -> String {
    let first = |paths: &[PathBuf]| {
        let there = paths.iter().find(|path| path.exists());
        there.map(|path| path.display().to_string()).unwrap_or_default()
    };
    match port {
        2379 => flags.of("etcd", "cert-file"),
        2380 => flags.of("etcd", "peer-cert-file"),
        10257 => flags.of("kube-controller-manager", "tls-cert-file"),
        10259 => flags.of("kube-scheduler", "tls-cert-file"),
        10250 => {
            let pki = Path::new("/var/lib/kubelet/pki");
            first(&[pki.join("kubelet-server-current.pem"), pki.join("kubelet.crt")])
        }
        _ => match flags.of("kube-apiserver", "tls-cert-file") {
            path if path.is_empty() => first(&[data_dir.join("pki/apiserver.crt")]),
            path => path,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_called_at_home() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(reachable(address("0.0.0.0:6443")), address("127.0.0.1:6443"));
        assert_eq!(reachable(address("192.0.2.1:2379")), address("192.0.2.1:2379"));
        assert!(reachable(address("[::]:10250")).ip().is_loopback());
    }
}
