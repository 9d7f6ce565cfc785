//! A small network of namespaces on threads: a node with a bridge, two pods, and a machine outside. Every namespace ends
//! with its thread; nothing is left on the machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub(crate) struct Namespace {
    tid: i32,
    jobs: Sender<Job>,
}

impl Namespace {
    fn new() -> Self {
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            sh("ip link set lo up");
            tell.send(nix::unistd::gettid().as_raw()).expect("the lab waits");
            work.into_iter().for_each(|job| job());
        });
        Self { tid: told.recv().expect("the namespace starts"), jobs }
    }

    /// Runs something inside.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || drop(tell.send(job())))).expect("the namespace lives");
        told.recv().expect("the job in the namespace did not panic")
    }

    /// Runs a future inside.
    pub(crate) fn block_on<R: Send + 'static, F: Future<Output = R>>(
        &self,
        job: impl FnOnce() -> F + Send + 'static,
    ) -> R {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(job())
        })
    }

    /// Connects and says who answered and whom it saw, or which error it was.
    pub(crate) fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || ask_tcp(address).unwrap_or_else(|error| format!("{:?}", error.kind())))
    }

    /// Serves on TCP 8080 and UDP 5353, at one address: answers over UDP must come from where the question went.
    pub(crate) fn serve(&self, name: &'static str, address: &'static str) {
        self.run(move || {
            let listener = TcpListener::bind((address, 8080)).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().expect("it is connected").ip();
                    let _ = write!(stream, "{name} saw {peer}");
                }
            });
            let socket = UdpSocket::bind((address, 5353)).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                let mut buffer = [0; 100];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            });
        });
    }
}

fn ask_tcp(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends a datagram on a socket that stays, and reads the answer.
pub(crate) fn ask_udp(socket: &UdpSocket) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("three seconds are not zero");
    let mut buffer = [0; 100];
    let answer = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
    answer.map_or_else(
        |error| format!("{:?}", error.kind()),
        |length| String::from_utf8_lossy(&buffer[..length]).into_owned(),
    )
}

/// The network: node 192.0.2.2 and 10.244.0.1, pods a 10.244.0.2 and b 10.244.0.3, outside 192.0.2.1.
pub(crate) struct Lab {
    pub(crate) node: Namespace,
    pub(crate) pod_a: Namespace,
    pub(crate) pod_b: Namespace,
    pub(crate) outside: Namespace,
}

impl Lab {
    /// Builds it; `None`, with a word about it, where the test can't run.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if kedge_skip::skipped_without_root(test) {
            return None;
        }
        let lab = Self {
            node: Namespace::new(),
            pod_a: Namespace::new(),
            pod_b: Namespace::new(),
            outside: Namespace::new(),
        };
        lab.node.run(|| {
            sh("ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && ip link set cni0 up");
            sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        });
        for (pod, name, address) in [(&lab.pod_a, "a", "10.244.0.2"), (&lab.pod_b, "b", "10.244.0.3")] {
            let tid = pod.tid;
            lab.node.run(move || {
                sh(&format!("ip link add veth{name} type veth peer name eth0 netns {tid}"));
                sh(&format!("ip link set veth{name} master cni0 up && bridge link set dev veth{name} hairpin on"));
            });
            pod.run(move || {
                sh(&format!(
                    "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route add default via 10.244.0.1"
                ));
            });
            pod.serve(name, address);
        }
        let tid = lab.outside.tid;
        lab.node.run(move || {
            sh(&format!("ip link add eth0 type veth peer name eth0 netns {tid}"));
            sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up");
        });
        lab.outside.run(|| sh("ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up"));
        // The route that the pod network makes; there is no default route.
        lab.node.run(|| sh("ip route add 10.96.0.0/12 dev cni0 scope link src 192.0.2.2 metric 4096"));
        Some(lab)
    }
}

/// Runs a shell command in the namespace of this thread.
pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().expect("there is a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
