//! Whether other machines answer on the ports that a cluster needs, and what size of packets the kernel knows to pass.
//!
//! Who they are is read on this machine: from what Kedge's network knows, from the tunnels' tables, from kubeconfigs. A
//! probe opens a connection and closes it. Invariant: bounded in number and in time.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_diagnosis::{Fact, MeasureFact, NetworkFact};
use serde_json::Value;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::node::network::interfaces::Tunnel;
use crate::node::program::output;
use crate::node::reading::Reading;

const PATIENCE: Duration = Duration::from_millis(700);
const MOST_PEERS: usize = 64;
const KUBELET: u16 = 10250;
const BGP: u16 = 179;

pub(super) async fn read(data_dir: &Path, kubeconfigs: &[PathBuf], tunnels: &[Tunnel]) -> Reading {
    let machines = machines(data_dir, tunnels).await;
    let mut probes = JoinSet::new();
    let ports = if listens_to_bgp() { vec![KUBELET, BGP] } else { vec![KUBELET] };
    for peer in machines.iter().take(MOST_PEERS).copied() {
        for port in ports.clone() {
            probes.spawn(tcp(peer.to_string(), peer, port));
        }
        let tunnel = tunnels.iter().map(|tunnel| tunnel.port).collect::<BTreeSet<u16>>();
        tunnel.into_iter().for_each(|port| drop(probes.spawn(udp(peer, port))));
    }
    for (name, port) in servers(kubeconfigs) {
        probes.spawn(server(name, port));
    }
    let mut facts: Vec<NetworkFact> = probes.join_all().await.into_iter().flatten().collect();
    facts.sort_by_key(ToString::to_string);
    let mut reading = Reading::default();
    facts.into_iter().for_each(|fact| reading.add("a connection", Fact::Network(fact)));
    for peer in machines.into_iter().take(MOST_PEERS) {
        if let Some(measure) = path(peer).await {
            reading.add(format!("ip route get {peer}"), Fact::Measure(measure));
        }
    }
    reading
}

/// Addresses of other machines of the cluster.
async fn machines(data_dir: &Path, tunnels: &[Tunnel]) -> BTreeSet<IpAddr> {
    let known = std::fs::read_to_string(data_dir.join("network/reachability.json")).unwrap_or_default();
    let view: Value = serde_json::from_str(&known).unwrap_or_default();
    let mut found: BTreeSet<IpAddr> =
        view["peers"].as_array().into_iter().flatten().filter_map(|peer| address(&peer["address"])).collect();
    for tunnel in tunnels {
        let said = output("bridge", &["-json", "fdb", "show", "dev", &tunnel.name]).await.unwrap_or_default();
        let table: Vec<Value> = serde_json::from_slice(&said).unwrap_or_default();
        found.extend(table.iter().filter_map(|entry| address(&entry["dst"])));
    }
    found.retain(|address| !address.is_unspecified() && !address.is_loopback() && !address.is_multicast());
    found
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

/// Hosts and ports of the API servers that this machine's own parts call.
fn servers(kubeconfigs: &[PathBuf]) -> BTreeSet<(String, u16)> {
    let urls = kubeconfigs.iter().filter_map(|path| kedge_client::server_of_kubeconfig(path));
    urls.filter_map(|url| {
        let url: http::Uri = url.parse().ok()?;
        Some((url.host()?.to_owned(), url.port_u16().unwrap_or(443)))
    })
    .collect()
}

async fn server(name: String, port: u16) -> Option<NetworkFact> {
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let called = tokio::time::timeout(PATIENCE, TcpStream::connect((bare.as_str(), port))).await;
    Some(probe(bare, "tcp", port, outcome(called)))
}

async fn tcp(name: String, peer: IpAddr, port: u16) -> Option<NetworkFact> {
    let called = tokio::time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(peer, port))).await;
    Some(probe(name, "tcp", port, outcome(called)))
}

fn outcome<T>(called: Result<std::io::Result<T>, tokio::time::error::Elapsed>) -> Option<String> {
    match called {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} ms", PATIENCE.as_millis())),
    }
}

/// A refusal of a port of UDP; silence says nothing.
async fn udp(peer: IpAddr, port: u16) -> Option<NetworkFact> {
    let socket = towards(peer, port).await.ok()?;
    // Too short for a packet of a tunnel: whoever takes them throws it away.
    socket.send(&[0]).await.ok()?;
    let mut answer = [0; 16];
    match tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await {
        Ok(Err(error)) => Some(probe(peer.to_string(), "udp", port, Some(error.to_string()))),
        _ => None,
    }
}

async fn towards(peer: IpAddr, port: u16) -> std::io::Result<UdpSocket> {
    let own: IpAddr = if peer.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect((peer, port)).await?;
    Ok(socket)
}

fn probe(to: String, protocol: &str, port: u16, error: Option<String>) -> NetworkFact {
    NetworkFact::Probe { to, protocol: protocol.to_owned(), port, error }
}

/// The size of packets that the kernel knows to pass to a peer, with the interface's own; nothing is sent.
async fn path(peer: IpAddr) -> Option<MeasureFact> {
    let said = output("ip", &["-json", "route", "get", &peer.to_string()]).await.ok()?;
    let routes: Vec<Value> = serde_json::from_slice(&said).ok()?;
    let route = routes.first()?;
    let learnt = route["metrics"][0]["mtu"].as_u64().or_else(|| route["mtu"].as_u64())?;
    let own = std::fs::read_to_string(format!("/sys/class/net/{}/mtu", route["dev"].as_str()?)).ok()?;
    Some(MeasureFact {
        name: "path_mtu".to_owned(),
        of: peer.to_string(),
        value: learnt as f64,
        limit: own.trim().parse().ok(),
    })
}

/// Whether somebody on this machine takes BGP sessions.
fn listens_to_bgp() -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .any(|path| has_listener(&std::fs::read_to_string(path).unwrap_or_default(), BGP))
}

fn has_listener(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let own = fields.next().and_then(|address| address.rsplit(':').next());
        own.and_then(|own| u16::from_str_radix(own, 16).ok()) == Some(port) && fields.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_are_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address");
        let shown = |fact: Option<NetworkFact>| fact.expect("a probe").to_string();
        assert_eq!(shown(tcp("me".to_owned(), own.ip(), own.port()).await), format!("me tcp/{}: ok", own.port()));
        drop(listener);
        assert!(shown(tcp("me".to_owned(), own.ip(), own.port()).await).contains("refused"));
        // Nobody takes UDP there either.
        assert!(shown(udp(own.ip(), own.port()).await).contains("refused"));
    }

    #[tokio::test]
    async fn peers_are_those_that_kedge_knows() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("network")).expect("it is made");
        let view = r#"{"node": "one", "peers": [{"node": "two", "address": "10.0.0.2"}, {"address": "127.0.0.1"}]}"#;
        std::fs::write(directory.path().join("network/reachability.json"), view).expect("it is written");
        let peers: Vec<String> = machines(directory.path(), &[]).await.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.2"]);
    }

    #[test]
    fn listeners_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 00000000:00B3 00000000:0000 0A 0\n   1: 0100007F:1F90 00000000:0000 01 0\n";
        assert!(has_listener(table, 179) && !has_listener(table, 8080) && !has_listener("", 179));
    }
}
