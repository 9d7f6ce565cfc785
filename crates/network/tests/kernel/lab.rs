//! Network namespaces on threads: each ends with its thread, and nothing is left on the machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub(crate) struct Namespace {
    pub(crate) tid: i32,
    jobs: Sender<Job>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
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

    /// The output of a shell command inside.
    pub(crate) fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }

    /// Connects and says whom the other side saw, or which error it was.
    pub(crate) fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().expect("an address");
        self.run(move || ask(address).unwrap_or_else(|error| format!("{:?}", error.kind())))
    }

    /// Serves on port 8080.
    pub(crate) fn serve(&self) {
        self.run(|| {
            let listener = TcpListener::bind("0.0.0.0:8080").expect("a fresh namespace has free ports");
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().expect("it is connected").ip();
                    let _ = write!(stream, "saw {peer}");
                }
            });
        });
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs a shell command in the namespace of this thread.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("there is a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("commands write text")
}

/// Calls a CNI plugin in the namespace of this thread.
pub(crate) fn cni(plugin: &std::path::Path, verb: &str, container: &str, tid: i32, config: &str) {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", format!("/proc/{tid}/ns/net"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin.parent().expect("it is in a folder"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the plugin is there");
    child.stdin.take().expect("it is piped").write_all(config.as_bytes()).expect("the plugin reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stdout));
}
