//! Connections that are open when policies come, change and go.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{Lab, PODS};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that says things and hears them again.
enum Talk {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Talk {
    /// Whether something comes back within a moment.
    fn works(&mut self, word: u8) -> bool {
        let mut heard = [0; 1];
        let mut once = || -> std::io::Result<()> {
            match self {
                Talk::Tcp(stream) => {
                    stream.write_all(&[word])?;
                    // What was held up may come first.
                    while heard[0] != word {
                        stream.read_exact(&mut heard)?;
                    }
                }
                Talk::Udp(socket) => {
                    socket.send(&[word])?;
                    socket.recv(&mut heard)?;
                }
            }
            Ok(())
        };
        once().is_ok()
    }
}

fn policy(app: &str, spec: Value) -> (&'static str, Value) {
    let mut spec = spec;
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    ("shop", spec)
}

#[test]
fn open_connections_follow_policies() {
    if kedge_skip::skipped_without_root("open_connections_follow_policies") {
        return;
    }
    let lab = Lab::new(&PODS);
    lab.apply(&[]);
    let web = "10.244.0.2:90";
    let mut from_store = [Talk::Tcp(lab.pod("store").connect(web)), Talk::Udp(lab.pod("store").connect_udp(web))];
    let mut from_probe = [Talk::Tcp(lab.pod("probe").connect(web)), Talk::Udp(lab.pod("probe").connect_udp(web))];
    let mut word = 0;
    let mut check = |talks: &mut [Talk], what: &str, wanted: bool| {
        for (index, talk) in talks.iter_mut().enumerate() {
            let deadline = Instant::now() + PATIENCE;
            loop {
                word += 1;
                if talk.works(word) == wanted {
                    break;
                }
                assert!(Instant::now() < deadline, "{what}: connection {index} works: {}", !wanted);
            }
        }
    };
    check(&mut from_store, "no policy", true);
    check(&mut from_probe, "no policy", true);

    lab.apply(&[policy("web", json!({"ingress": [{"from": [{"podSelector": {}}]}]}))]);
    check(&mut from_probe, "not of the namespace", false);
    check(&mut from_store, "of the namespace", true);

    lab.apply(&[policy("store", json!({"policyTypes": ["Egress"]}))]);
    check(&mut from_probe, "allowed again", true);
    check(&mut from_store, "may send nothing", false);

    // Answers are no openings: who may receive only, and who may send only, talk.
    lab.apply(&[
        policy("store", json!({"policyTypes": ["Ingress"]})),
        policy("web", json!({"policyTypes": ["Egress"]})),
    ]);
    check(&mut from_store, "answers pass", true);
    lab.apply(&[]);
    check(&mut from_store, "no policy again", true);
}
