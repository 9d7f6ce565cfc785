//! An etcd on loopback for a test.
//!
//! Invariant: its process ends with it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use kedge_skip::skip;

use crate::host::free_port;

/// A running etcd.
pub struct Etcd {
    directory: tempfile::TempDir,
    ports: (u16, u16),
    process: Option<Child>,
}

impl Etcd {
    /// Starts one; `None` (with the reason said) where there is none.
    pub fn up() -> Option<Self> {
        if !Path::new("/usr/bin/etcd").exists() {
            skip(std::thread::current().name().unwrap_or("a test"), "there is no etcd (Debian's package etcd-server)");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("kedge-etcd-").tempdir().expect("a directory can be made");
        let mut etcd = Self { directory, ports: (free_port(), free_port()), process: None };
        etcd.start();
        Some(etcd)
    }

    /// Its client URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    /// Starts it (again) with what is on its disk.
    pub fn start(&mut self) {
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.ports.1));
        let process = Command::new("/usr/bin/etcd")
            .args(["--name", "e2e", "--data-dir"])
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("e2e={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd can be started");
        self.process = Some(process);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("our own child can be killed");
        process.wait().expect("our own child can be waited for");
    }

    /// What `etcdctl` prints.
    pub fn ctl(&self, words: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]).args(words);
        let output = command.output().expect("etcdctl runs");
        assert!(output.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
