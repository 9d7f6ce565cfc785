//! A machine for `kedge init`: namespaces of its own, its own `/etc`, `/var/lib`, `/run` and `/var/log`, a containerd at the
//! usual socket, an address that leads nowhere else.
//!
//! Invariant: it ends, with every process, mount and rule in it, when this is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use kedge_skip::{skip, skipped_without_root};

use crate::binary::{busybox_image, kedge_binary};
use crate::host::CALM;
use crate::kubectl::{Output, run};
use crate::pods::BUSYBOX;
use crate::wait::eventually;

const SCRIPT: &str = include_str!("machine.sh");
const FIRST: &str = "machine.sh";
const CGROUPS_SCRIPT: &str = include_str!("machine_cgroups.sh");

/// A machine that runs.
pub struct Machine {
    binary: PathBuf,
    dir: tempfile::TempDir,
    process: Child,
    /// The machine ends when this is closed.
    _alive: ChildStdin,
    init: u32,
    group: String,
    name: String,
    address: String,
}

impl Machine {
    /// Starts one; `None` (with the reason said) where that can't be here.
    pub fn start(name: &str, address: &str) -> Option<Self> {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let Some(binary) = kedge_binary() else {
            skip(&test, "there is no release binary; build it with `cargo xtask build`");
            return None;
        };
        if skipped_without_root(&test) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("kedge-e2e-").tempdir().expect("a directory can be made");
        let script = dir.path().join(FIRST);
        std::fs::write(&script, SCRIPT).expect("a file can be written");
        let files = dir.path().join("files");
        std::fs::create_dir(&files).expect("a directory can be made");
        let log = File::create(dir.path().join("machine.log")).expect("a file can be made");
        let group = format!("kedge-machine-{}-{name}", std::process::id());
        let mut command = Command::new("sh");
        command.args(["-c", CGROUPS_SCRIPT, "sh", &group, "unshare", "--cgroup"]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "sh"]);
        command.arg(&script).arg(&files).args([name, address]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let alive = process.stdin.take().expect("it is piped");
        let mut said = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        output.read_line(&mut said).expect("its output can be read");
        let log = || std::fs::read_to_string(dir.path().join("machine.log")).unwrap_or_default();
        assert_eq!(said.trim(), "ready", "the machine does not start:\n{}", log());
        let init = first_process(process.id()).expect("it has a first process");
        let (name, address) = (name.to_owned(), address.to_owned());
        Some(Self { binary, dir, process, _alive: alive, init, group, name, address })
    }

    /// Lays a cable to another machine: from now on they share a segment.
    pub fn plug(&self, other: &Self) {
        let end = |machine: &Self, port: &str| [format!("name {port} netns {}", machine.init), port.to_owned()];
        let ([own, port], [others, other_port]) =
            (end(self, &format!("to-{}", other.name)), end(other, &format!("to-{}", self.name)));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ip link add {own} type veth peer {others}")]);
        let output = run(command, None);
        assert!(output.ok, "{}", output.all());
        self.sh(&format!("ip link set {port} master uplink up"));
        other.sh(&format!("ip link set {other_port} master uplink up"));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process id of its first process.
    pub(crate) fn first_process(&self) -> u32 {
        self.init
    }

    /// Runs a shell script on it.
    pub fn try_sh(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid"]);
        command.args(["--", "sh", "-c", script]).env("KUBECONFIG", "/etc/kubernetes/admin.conf");
        command.env("KEDGE", &self.binary).stdin(Stdio::null());
        run(command, None)
    }

    /// The output of a shell script on it; panics where it fails.
    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(output.ok, "on {}, {script:?} failed:\n{}", self.name, output.all());
        output.stdout
    }

    /// Waits until the output of a script has a text in it.
    pub fn shows(&self, what: &str, script: &str, text: &str) {
        eventually(what, std::time::Duration::from_secs(120), || {
            let output = self.try_sh(script);
            if output.ok && output.stdout.contains(text) { Ok(()) } else { Err(output.all()) }
        });
    }

    /// Writes a file on it.
    pub fn put(&self, path: &str, text: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--", "sh", "-c", &format!("cat > {path}")]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it can be written");
        assert!(child.wait().expect("it ends").success(), "{path} cannot be written");
    }

    /// A configuration of the kubelets that evicts only when nothing is left.
    pub fn calm_kubelet() -> String {
        format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{CALM}")
    }

    /// Loads [`BUSYBOX`] into its containerd.
    pub fn load_busybox(&self) {
        let archive = self.dir.path().join("busybox.tar");
        busybox_image(BUSYBOX, &archive);
        self.sh(&format!("ctr -n k8s.io images import {}", archive.display()));
    }

    fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("files/log").join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// The process that `unshare` forked.
fn first_process(parent: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the kubelet's log ---\n{}", self.log("kedge-kubelet.log"));
            let pods = "for f in /var/log/pods/*/*/*.log; do echo \"== $f\"; tail -n 15 $f; done; ps ax";
            eprintln!("{}", self.try_sh(pods).all());
        }
        // The kernel ends every process of the machine with its first one, and the namespaces with the last.
        let _ = Command::new("kill").args(["-9", &self.init.to_string()]).status();
        let _ = self.process.wait();
        // What was in them may take a moment to be gone; a group that is left is empty, and does no harm.
        let script = "for try in 1 2 3 4 5 6 7 8 9 10; do left=; \
            for own in /sys/fs/cgroup/*/$0 /sys/fs/cgroup/$0; do \
            [ -d $own ] && { find $own -depth -type d -exec rmdir {} + 2>/dev/null || left=$own; }; done; \
            [ -z \"$left\" ] && exit; sleep 0.3; done";
        let _ = Command::new("sh").args(["-c", script, &self.group]).status();
    }
}
