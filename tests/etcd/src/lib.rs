//! An etcd of one or more members for a test: started on loopback, killed and started again, gone with the test.
//!
//! Each test has its own, in its own directory; what it keeps there is the test's to say. Invariant: no process is left
//! behind, also where a test fails.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a test waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Skips a test where there is no etcd; true where it is skipped.
pub fn skipped_without_etcd(test: &str) -> bool {
    let found = Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        kedge_skip::skip(test, "there is no etcd (Debian's package etcd-server)");
    }
    !found
}

/// The members.
pub struct Etcd {
    directory: TempDir,
    members: Vec<Member>,
    cluster: String,
    extra: Vec<String>,
    scheme: &'static str,
    /// Where the member is that was started elsewhere.
    elsewhere: Option<String>,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

/// Ports that were free a moment ago. Not of those that the kernel gives to clients: one of them may be taken by a
/// connection of another test before etcd is there.
fn free_ports(count: usize) -> Vec<u16> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    while listeners.len() < count {
        listeners.extend(TcpListener::bind(("127.0.0.1", rand::random_range(10_000..32_000))));
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Etcd {
    /// Starts one member, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(1, "http", &[])
    }

    /// Starts members with further flags, and waits until they answer.
    pub fn start_with(count: usize, scheme: &'static str, extra: &[String]) -> Self {
        let ports = free_ports(count * 2);
        let member = |at: usize| Member { client_port: ports[2 * at], peer_port: ports[2 * at + 1], process: None };
        let members: Vec<_> = (0..count).map(member).collect();
        let peers = members.iter().enumerate();
        let peers: Vec<_> = peers.map(|(at, member)| format!("m{at}=http://127.0.0.1:{}", member.peer_port)).collect();
        let (directory, cluster) = (TempDir::new().unwrap(), peers.join(","));
        let mut etcd = Self { directory, members, cluster, extra: extra.to_vec(), scheme, elsewhere: None };
        (0..count).for_each(|at| etcd.launch(at));
        etcd
    }

    /// Starts a member again, with what it has on disk.
    pub fn launch(&mut self, at: usize) {
        self.elsewhere = None;
        self.launch_at(at, self.members[at].client_port);
    }

    /// Starts a member where only [`Etcd::etcdctl`] finds it.
    pub fn launch_elsewhere(&mut self, at: usize) {
        let port = free_ports(1)[0];
        self.elsewhere = Some(format!("{}://127.0.0.1:{port}", self.scheme));
        self.launch_at(at, port);
    }

    /// Keeps a copy of what a member has on disk.
    pub fn save(&self, at: usize) {
        self.copy(&format!("m{at}"), "saved");
    }

    /// Gives a member what was saved.
    pub fn restore(&self, at: usize) {
        std::fs::remove_dir_all(self.directory.path().join(format!("m{at}"))).unwrap();
        self.copy("saved", &format!("m{at}"));
    }

    fn copy(&self, from: &str, to: &str) {
        let paths = [from, to].map(|name| self.directory.path().join(name));
        assert!(Command::new("cp").arg("-a").args(&paths).status().unwrap().success());
    }

    /// Waits until a member takes part again.
    pub fn wait_for_member(&self, at: usize) {
        let endpoint = self.endpoints().swap_remove(at);
        self.etcdctl_at(&endpoint, &["get", "/nothing"]);
    }

    fn launch_at(&mut self, at: usize, client_port: u16) {
        let (name, member) = (format!("m{at}"), &mut self.members[at]);
        let client = format!("{}://127.0.0.1:{client_port}", self.scheme);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let log = self.directory.path().join(format!("{name}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let process = Command::new("etcd")
            .args(["--name", &name, "--data-dir"])
            .arg(self.directory.path().join(&name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster, "--initial-cluster-state", "new", "--enable-pprof=false"])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        member.process = Some(process);
    }

    /// Ends a member without a warning.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Lets a member stand still, or go on.
    pub fn signal(&self, at: usize, signal: &str) {
        let process = self.members[at].process.as_ref().unwrap();
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
    }

    /// Where clients reach the members.
    pub fn endpoints(&self) -> Vec<String> {
        let url = |member: &Member| format!("{}://127.0.0.1:{}", self.scheme, member.client_port);
        self.members.iter().map(url).collect()
    }

    /// What `etcdctl` says; retried while etcd is starting.
    pub fn etcdctl(&self, words: &[&str]) -> String {
        let endpoints = self.elsewhere.clone().unwrap_or_else(|| self.endpoints().join(","));
        self.etcdctl_at(&endpoints, words)
    }

    fn etcdctl_at(&self, endpoints: &str, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", endpoints])
                .args(words)
                .output()
                .unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(begun.elapsed() < DEADLINE, "etcdctl {words:?}: {said}");
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
    }
}
