//! Two speakers, and a speaker and BIRD, in network namespaces that the test makes for itself. Needs root, nft and BIRD;
//! where one is missing, the test says that it was skipped.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kedge_bgp::{Config, PeerConfig, Speaker};
use kedge_netns::Namespace;
use tokio_util::sync::CancellationToken;

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ASN: u32 = 64512;
const BIRD: &str = "/usr/sbin/bird";

/// A speaker that lives in a namespace.
struct Node {
    speaker: Option<Arc<Speaker>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start(namespace: Arc<Namespace>, address: Ipv4Addr, asn: u32, prefix: &str) -> Self {
        let stop = CancellationToken::new();
        let (tell, told) = channel();
        let (token, prefix) = (stop.clone(), net(prefix));
        let thread = std::thread::spawn(move || {
            namespace.block_on(move || async move {
                let mut config = Config::new(asn, vec![address.into()]);
                (config.hold_time, config.retry_after) = (3, 1);
                let speaker = Arc::new(Speaker::start(config).await.unwrap());
                speaker.announce([prefix]);
                tell.send(speaker.clone()).unwrap();
                token.cancelled().await;
            });
        });
        Self { speaker: Some(told.recv().unwrap()), stop, thread: Some(thread) }
    }

    fn speaker(&self) -> &Speaker {
        self.speaker.as_ref().unwrap()
    }

    fn peer_with(&self, address: Ipv4Addr, asn: u32) {
        self.speaker().set_peers([PeerConfig { address: address.into(), asn, port: None }]);
    }

    /// State and last error of the only peer, then the routes.
    fn shown(&self) -> String {
        let peers = self.speaker().peers();
        let peer = peers.first().map(|peer| {
            format!("{} {} {}", peer.state.as_str(), peer.routes, peer.last_error.as_deref().unwrap_or("-"))
        });
        let routes = self.speaker().routes().into_iter().map(|(prefix, route)| {
            format!("; {prefix} via {}{}", route.next_hop, if route.is_stale { " stale" } else { "" })
        });
        peer.unwrap_or_default() + &routes.collect::<String>()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.speaker = None;
        self.stop.cancel();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Waits until something is as it should be.
fn eventually(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match look() {
            Ok(()) => return,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn expect(node: &Node, expected: &str) {
    eventually(expected, || if node.shown() == expected { Ok(()) } else { Err(node.shown()) });
}

/// Two machines on one segment.
fn segment() -> (Arc<Namespace>, Arc<Namespace>) {
    let (a, b) = (Namespace::new(), Namespace::new());
    a.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", b.tid()));
    a.sh(&format!("ip addr add {A}/24 dev eth0 && ip link set eth0 up"));
    b.sh(&format!("ip addr add {B}/24 dev eth0 && ip link set eth0 up"));
    (Arc::new(a), Arc::new(b))
}

#[test]
fn speakers_learn_from_each_other_and_heal() {
    if kedge_skip::skipped_without_root("speakers_learn_from_each_other_and_heal") {
        return;
    }
    let (wire_a, wire_b) = segment();
    let a = Node::start(wire_a.clone(), A, ASN, "10.244.1.0/24");
    let b = Node::start(wire_b.clone(), B, ASN, "10.244.2.0/24");
    a.peer_with(B, ASN);
    eventually("a stranger is refused", || match a.shown().starts_with("Established") {
        true => Err(a.shown()),
        false => Ok(()),
    });
    b.peer_with(A, ASN);
    expect(&a, "Established 1 -; 10.244.2.0/24 via 192.0.2.2");
    expect(&b, "Established 1 -; 10.244.1.0/24 via 192.0.2.1");

    a.speaker().announce([net("10.244.1.0/24"), net("10.244.3.0/24")]);
    expect(&b, "Established 2 -; 10.244.1.0/24 via 192.0.2.1; 10.244.3.0/24 via 192.0.2.1");
    a.speaker().announce([net("10.244.3.0/24")]);
    expect(&b, "Established 1 -; 10.244.3.0/24 via 192.0.2.1");

    // Somebody blocks the port: both notice, keep the routes as stale ones, and come back when it is open.
    // The namespaces' own threads are busy with the speakers.
    let inside = |namespace: &Namespace, command: &str| {
        let status = Command::new("nsenter")
            .args([&format!("--net=/proc/{}/task/{}/ns/net", std::process::id(), namespace.tid()), "sh", "-c", command])
            .status();
        assert!(status.unwrap().success(), "{command}");
    };
    inside(
        &wire_a,
        "nft 'add table ip block; add chain ip block in { type filter hook input priority 0; }; \
         add chain ip block out { type filter hook output priority 0; }; \
         add rule ip block in tcp dport 179 drop; add rule ip block in tcp sport 179 drop; \
         add rule ip block out tcp dport 179 drop; add rule ip block out tcp sport 179 drop'",
    );
    eventually("the cut is noticed", || {
        let (from_a, from_b) = (a.shown(), b.shown());
        let is_noticed = |seen: &str, prefix: &str| {
            !seen.starts_with("Established") && !seen.contains(" - ") && seen.contains(&format!("{prefix} stale"))
        };
        let both =
            is_noticed(&from_a, "10.244.2.0/24 via 192.0.2.2") && is_noticed(&from_b, "10.244.3.0/24 via 192.0.2.1");
        if both { Ok(()) } else { Err(format!("{from_a} / {from_b}")) }
    });
    eventually("the reason is said", || match b.shown().contains("is TCP port 179 blocked?") {
        true => Ok(()),
        false => Err(b.shown()),
    });
    inside(&wire_a, "nft delete table ip block");
    expect(&a, "Established 1 -; 10.244.2.0/24 via 192.0.2.2");
    expect(&b, "Established 1 -; 10.244.3.0/24 via 192.0.2.1");

    // Another process takes the place of the first: nothing is lost meanwhile.
    drop(a);
    eventually("the end is noticed", || match b.shown().contains("10.244.3.0/24 via 192.0.2.1 stale") {
        true => Ok(()),
        false => Err(b.shown()),
    });
    let a = Node::start(wire_a, A, ASN, "10.244.5.0/24");
    a.peer_with(B, ASN);
    expect(&b, "Established 1 -; 10.244.5.0/24 via 192.0.2.1");

    a.speaker().leave();
    eventually("a goodbye takes the routes at once", || match b.speaker().routes().is_empty() {
        true => Ok(()),
        false => Err(b.shown()),
    });
}

#[test]
fn a_peer_of_another_system_is_named() {
    if kedge_skip::skipped_without_root("a_peer_of_another_system_is_named") {
        return;
    }
    let (wire_a, wire_b) = segment();
    let a = Node::start(wire_a, A, ASN, "10.244.1.0/24");
    let b = Node::start(wire_b, B, 64999, "10.244.2.0/24");
    a.peer_with(B, ASN);
    b.peer_with(A, ASN);
    eventually("the wrong number is said", || match a.shown().contains("AS 64999, and not of AS 64512") {
        true => Ok(()),
        false => Err(a.shown()),
    });
    assert!(a.speaker().routes().is_empty());
    a.peer_with(B, 64999);
    expect(&a, "Established 1 -; 10.244.2.0/24 via 192.0.2.2");
    expect(&b, "Established 1 -; 10.244.1.0/24 via 192.0.2.1");
}

/// A BIRD in a namespace; ends with the test.
struct Bird {
    process: Child,
    control: String,
}

impl Bird {
    fn start(namespace: &Namespace, folder: &Path) -> Self {
        let config = format!(
            "router id {B};\nprotocol device {{ }}\n\
             protocol static {{ ipv4; route 10.99.0.0/16 via {B}; route 10.98.0.0/24 blackhole; }}\n\
             protocol bgp kedge {{ local {B} as 64999; neighbor {A} as {ASN}; graceful restart on;\n\
             ipv4 {{ import all; export all; next hop self; }}; }}\n"
        );
        std::fs::write(folder.join("bird.conf"), config).unwrap();
        let (file, control) = (folder.join("bird.conf"), folder.join("bird.ctl").to_str().unwrap().to_owned());
        let socket = control.clone();
        let process = namespace.run(move || {
            Command::new(BIRD)
                .args(["-f", "-c", file.to_str().unwrap(), "-s", &socket])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        Self { process, control }
    }

    fn ask(&self, question: &str) -> String {
        let output = Command::new("/usr/sbin/birdc").args(["-s", &self.control]).args(question.split(' ')).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn bird_is_a_peer() {
    if kedge_skip::skipped_without_root("bird_is_a_peer") {
        return;
    }
    if !Path::new(BIRD).exists() {
        kedge_skip::skip("bird_is_a_peer", "there is no BIRD (Debian's package bird2)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (wire_a, wire_b) = segment();
    let bird = Bird::start(&wire_b, folder.path());
    let a = Node::start(wire_a, A, ASN, "10.244.1.0/24");
    a.peer_with(B, 64999);
    expect(&a, "Established 2 -; 10.98.0.0/24 via 192.0.2.2; 10.99.0.0/16 via 192.0.2.2");
    eventually("BIRD has our route", || {
        let routes = bird.ask("show route all 10.244.1.0/24");
        let is_right = routes.contains("via 192.0.2.1") && routes.contains(&format!("BGP.as_path: {ASN}"));
        if is_right { Ok(()) } else { Err(routes) }
    });
    assert!(bird.ask("show protocols").contains("Established"), "{}", bird.ask("show protocols"));
    bird.ask("disable kedge");
    eventually("a goodbye takes the routes", || match a.speaker().routes().is_empty() {
        true => Ok(()),
        false => Err(a.shown()),
    });
    bird.ask("enable kedge");
    expect(&a, "Established 2 -; 10.98.0.0/24 via 192.0.2.2; 10.99.0.0/16 via 192.0.2.2");
}
