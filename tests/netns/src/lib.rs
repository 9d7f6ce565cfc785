//! Network namespaces on threads, for tests of what the kernel does with packets: each ends with its thread, and nothing
//! is left on the machine.
//!
//! Used by the tests of the packet rules and of the pod network. Hosts with whole clusters are `kedge-e2e`'s.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

/// The output of a shell command; panics where it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("there is a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("commands write text")
}
