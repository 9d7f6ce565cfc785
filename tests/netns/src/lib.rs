//! Network namespaces on threads, for tests of what the kernel does with packets: each ends with its thread, and nothing
//! is left on the machine.
//!
//! Used by the tests of the packet rules and of the pod network. Hosts with whole clusters are `kedge-e2e`'s.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

const PATIENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub struct Namespace {
    tid: i32,
    jobs: Sender<Job>,
}

impl Namespace {
    /// An empty one, with its loopback device up. Needs root.
    #[allow(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Self {
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            sh("ip link set lo up");
            tell.send(nix::unistd::gettid().as_raw()).expect("the test waits");
            work.into_iter().for_each(|job| job());
        });
        Self { tid: told.recv().expect("the namespace starts"), jobs }
    }

    /// The thread that lives in it: names it for `ip link ... netns` and `/proc/<tid>/ns/net`.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Runs something inside.
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || drop(tell.send(job())))).expect("the namespace lives");
        told.recv().expect("the job in the namespace did not panic")
    }

    /// Runs a future inside.
    pub fn block_on<R: Send + 'static, F: Future<Output = R>>(&self, job: impl FnOnce() -> F + Send + 'static) -> R {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(job())
        })
    }

    /// The output of a shell command inside; panics where it fails.
    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }

    /// Connects and says what the other side answered, or which kind of error it was.
    pub fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || ask(address).unwrap_or_else(|error| format!("{:?}", error.kind())))
    }

    /// Serves TCP at an address and port: each connection gets `<greeting>saw <address of the client>`.
    pub fn serve(&self, address: &str, greeting: &str) {
        let (address, greeting) = (address.to_owned(), greeting.to_owned());
        self.run(move || {
            let listener = TcpListener::bind(&address).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().expect("it is connected").ip();
                    // Whoever asked may have gone.
                    let _ = write!(stream, "{greeting}saw {peer}");
                }
            });
        });
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// How long a connection of a test waits for an answer.
const TALK_PATIENCE: Duration = Duration::from_millis(700);

impl Namespace {
    /// Serves UDP: each datagram is answered with `saw`.
    pub fn serve_udp(&self, address: &str) {
        let address = address.to_owned();
        self.run(move || {
            let socket = UdpSocket::bind(&address).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    // Whoever asked may have gone.
                    let _ = socket.send_to(b"saw", from);
                }
            });
        });
    }

    /// Sends a datagram and says what came back, or which kind of error it was.
    pub fn ask_udp(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || ask_udp(address).unwrap_or_else(|error| format!("{:?}", error.kind())))
    }

    /// Sends back what it gets, over TCP and UDP.
    pub fn echo(&self, address: &str) {
        let address = address.to_owned();
        self.run(move || {
            let listener = TcpListener::bind(&address).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
                }
            });
            let socket = UdpSocket::bind(&address).expect("a fresh namespace has free ports");
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // Whoever asked may have gone.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
        });
    }

    /// An open connection from here.
    pub fn connect(&self, address: &str) -> TcpStream {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
            stream.set_read_timeout(Some(TALK_PATIENCE)).expect("a time");
            stream
        })
    }

    /// A UDP socket that has one other side.
    pub fn connect_udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || udp_to(address).expect("a route"))
    }
}

fn udp_to(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(TALK_PATIENCE))?;
    Ok(socket)
}

fn ask_udp(address: SocketAddr) -> std::io::Result<String> {
    let socket = udp_to(address)?;
    socket.send(b"?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The output of a shell command; panics where it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("there is a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("commands write text")
}
