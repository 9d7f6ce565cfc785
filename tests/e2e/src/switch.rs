//! What real machines have around them: a segment, a balancer of TCP connections, a name server that knows nobody.
//!
//! Invariant: it leads nowhere else, and is gone with its value.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::kubectl::run;
use crate::machine::Machine;

const PORT: u16 = 6443;
const NAMES: u16 = 53;

type Targets = Arc<Mutex<Vec<SocketAddr>>>;

/// A segment with a balancer and a name server at one address.
pub struct Switch {
    namespace: String,
    targets: Targets,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Makes one; nobody is plugged in yet, and the balancer has no targets.
    pub fn start(address: &str) -> Self {
        let namespace = format!("kedge-e2e-{}-switch", std::process::id());
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link add uplink type bridge"));
        ip(&format!("-n {namespace} address add {address}/24 dev uplink"));
        ip(&format!("-n {namespace} link set uplink up"));
        let targets = Targets::default();
        let (stop, stopped) = oneshot::channel();
        let (tell, ready) = std::sync::mpsc::channel();
        let file = format!("/run/netns/{namespace}");
        let (shared, address) = (targets.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let namespace = File::open(file).expect("the namespace is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async move {
                let listener = TcpListener::bind((address.as_str(), PORT)).await.expect("the address is free");
                let names = UdpSocket::bind((address.as_str(), NAMES)).await.expect("the address is free");
                tell.send(()).expect("the test waits");
                tokio::select! {
                    () = balance(listener, shared) => {}
                    () = know_nobody(names) => {}
                    _ = stopped => {}
                }
            });
        });
        ready.recv().expect("the balancer starts");
        Self { namespace, targets, stop: Some(stop), thread: Some(thread) }
    }

    /// Lays a cable to a machine.
    pub fn plug(&self, machine: &Machine) {
        let port = format!("to-{}", &machine.name()[machine.name().len().saturating_sub(12)..]);
        let init = machine.first_process();
        ip(&format!("-n {} link add {port} type veth peer name to-switch netns {init}", self.namespace));
        ip(&format!("-n {} link set {port} master uplink up", self.namespace));
        machine.sh("ip link set to-switch master uplink up");
    }

    /// Sends a part of the new connections to this machine's API server too.
    pub fn balance_to(&self, machine: &Machine) {
        let target = format!("{}:{PORT}", machine.address()).parse().expect("a machine has an address");
        self.targets.lock().expect("nobody panics with it").push(target);
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have panicked, which the test shows anyway.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn ip(words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    let output = run(command, None);
    assert!(output.ok, "ip {words} failed: {}", output.all());
}

/// One target after the other; one that refuses is passed over.
async fn balance(listener: TcpListener, targets: Targets) {
    let mut turn = 0;
    while let Ok((mut client, _)) = listener.accept().await {
        let mut order = targets.lock().expect("nobody panics with it").clone();
        turn += 1;
        if !order.is_empty() {
            let first = turn % order.len();
            order.rotate_left(first);
        }
        tokio::spawn(async move {
            for target in order {
                if let Ok(mut server) = TcpStream::connect(target).await {
                    // Either side may leave early.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// Answers every question with NXDOMAIN.
async fn know_nobody(names: UdpSocket) {
    let mut packet = [0; 512];
    while let Ok((length, asker)) = names.recv_from(&mut packet).await {
        let Some(header) = packet[..length].first_chunk::<12>() else { continue };
        let mut answer = packet[..length].to_vec();
        // An answer with recursion available, and the code 3; one question, and nothing else.
        (answer[2], answer[3]) = (0x80 | (header[2] & 0x79), 0x83);
        answer[6..12].fill(0);
        let question = 12 + answer[12..].iter().position(|byte| *byte == 0).map_or(0, |end| end + 5);
        answer.truncate(question);
        // Who asked may be gone.
        let _ = names.send_to(&answer, asker).await;
    }
}
