//! A host for a cluster: a network namespace with an address that leads nowhere else, a data directory, a kedge process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kedge_skip::{skip, skipped_without_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary::kedge_binary;
use crate::kubectl::{Kubectl, Output, inside, run};
use crate::wait::eventually;

const ADDRESS: &str = "198.51.100.2";
const START_PATIENCE: Duration = Duration::from_secs(180);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How full this machine happens to be is not what a test is about.
pub(crate) const CALM: &str =
    "evictionHard: {memory.available: 10Mi, nodefs.available: 16Mi}\nimageGCHighThresholdPercent: 100\n";
const KUBELET_HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What kind of host.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Only a control plane, without root and without a namespace.
    pub control_plane_only: bool,
    /// Further addresses of the host, each with the length of its prefix.
    pub addresses: Vec<String>,
    /// Leave the host only those.
    pub without_ipv4: bool,
    /// Further flags of `kedge up`.
    pub flags: Vec<String>,
    /// Fields of the kubelet's configuration file, as YAML; where absent, the node evicts only when nothing is left.
    pub kubelet: Option<String>,
    /// Another binary than the one under test.
    pub binary: Option<PathBuf>,
    /// What the environment of every kedge command has besides.
    pub environment: Vec<(String, String)>,
}

/// A host with (mostly) a running kedge.
pub struct Host {
    binary: PathBuf,
    namespace: Option<String>,
    dir: tempfile::TempDir,
    port: u16,
    options: HostOptions,
    process: Option<Child>,
}

impl Host {
    /// A host with a running cluster; `None` (with the reason said) where that can't be here.
    pub fn up(options: HostOptions) -> Option<Self> {
        let mut host = Self::prepare(options)?;
        host.start();
        Some(host)
    }

    /// A host on which nothing runs yet.
    pub fn prepare(options: HostOptions) -> Option<Self> {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let Some(binary) = options.binary.clone().or_else(kedge_binary) else {
            skip(&test, "there is no release binary; build it with `cargo xtask build`");
            return None;
        };
        if !options.control_plane_only && skipped_without_root(&test) {
            return None;
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = (!options.control_plane_only).then(|| format!("kedge-e2e-{}-{number}", std::process::id()));
        if let Some(namespace) = &namespace {
            let first = (!options.without_ipv4).then(|| format!("{ADDRESS}/24"));
            make_namespace(namespace, &first.into_iter().chain(options.addresses.clone()).collect::<Vec<_>>());
        }
        let dir = tempfile::Builder::new().prefix("kedge-e2e-").tempdir().expect("a directory can be made");
        let port = if options.control_plane_only { free_port() } else { 6443 };
        Some(Self { binary, namespace, dir, port, options, process: None })
    }

    /// Starts (or restarts) kedge and waits until it says that it is up.
    pub fn start(&mut self) {
        let log = self.dir.path().join("kedge.log");
        let mut command = self.command("up");
        command.args(["--data-dir", self.text(&self.data_dir()), "--kubeconfig", self.text(&self.kubeconfig())]);
        command.args(["--node-name", "node-1", "--output", "json"]);
        if self.options.control_plane_only {
            command.args(["--control-plane-only", "--node-ip", "127.0.0.1", "--secure-port", &self.port.to_string()]);
        }
        if !self.options.control_plane_only && !self.options.flags.iter().any(|flag| flag == "--control-plane-only") {
            let configuration = self.dir.path().join("kubelet.yaml");
            let fields = self.options.kubelet.as_deref().unwrap_or(CALM);
            std::fs::write(&configuration, format!("{KUBELET_HEAD}{fields}")).expect("a file can be written");
            command.args(["--kubelet-config", self.text(&configuration)]);
        }
        command.args(&self.options.flags).env("KEDGE_LOG", "info");
        let open = || File::options().create(true).append(true).open(&log).expect("the log can be written");
        let ready = self.dir.path().join("ready.json");
        command.stdin(Stdio::null()).stderr(open()).stdout(File::create(&ready).expect("a file can be made"));
        self.process = Some(command.spawn().expect("kedge can be started"));
        eventually("`kedge up` being ready", START_PATIENCE, || {
            let text = std::fs::read_to_string(&ready).unwrap_or_default();
            let ended = self.process.as_mut().and_then(|child| child.try_wait().ok()).flatten();
            if let Some(status) = ended {
                panic!("kedge ended ({status}):\n{}", self.log());
            }
            if text.contains("\"server\"") { Ok(()) } else { Err(self.log()) }
        });
    }

    /// Ends kedge with SIGKILL.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("our own child can be killed");
        process.wait().expect("our own child can be waited for");
    }

    /// Ends kedge with SIGTERM and returns whether it ended with 0.
    pub fn terminate(&mut self) -> bool {
        let Some(mut process) = self.process.take() else { return false };
        let pid = i32::try_from(process.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("our own child can be signalled");
        let ended = eventually("the end of kedge", STOP_PATIENCE, || match process.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err(self.log()),
        });
        ended.success()
    }

    /// Runs a kedge command for this host's data directory.
    pub fn kedge(&self, command: &str, arguments: &[&str]) -> Output {
        let mut process = self.command(command);
        process.args(arguments);
        run(process, None)
    }

    /// Runs a program on this host.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = inside(self.namespace.as_deref(), program);
        command.args(arguments);
        run(command, None)
    }

    /// kubectl for this host's cluster.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl {
            program: std::env::var("KEDGE_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned()),
            kubeconfig: self.kubeconfig(),
            namespace: self.namespace.clone(),
        }
    }

    /// The node's address.
    pub fn address(&self) -> &'static str {
        if self.options.control_plane_only { "127.0.0.1" } else { ADDRESS }
    }

    /// The API server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The network namespace, where there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The process id of the running kedge.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path for a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The kubeconfig into which kedge merges its context.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// What kedge logged so far.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("kedge.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// A command of the binary under test, on this host.
    pub fn command(&self, name: &str) -> Command {
        let mut command = inside(self.namespace.as_deref(), self.text(&self.binary));
        command.arg(name).env("KEDGE_DATA_DIR", self.data_dir()).env_remove("KUBECONFIG");
        command.envs(self.options.environment.iter().cloned());
        command
    }

    fn text<'a>(&self, path: &'a Path) -> &'a str {
        path.to_str().expect("paths of tests are text")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kedge's log ---\n{}", self.log());
        }
        self.kill();
        let down = self.kedge("down", &["--delete-data"]);
        if !down.ok {
            eprintln!("kedge down failed:\n{}", down.all());
        }
        if let Some(namespace) = &self.namespace {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// A namespace with loopback and one more interface, whose network has no way out.
fn make_namespace(name: &str, addresses: &[String]) {
    let ip = |arguments: &[&str]| {
        let output = run(
            {
                let mut command = Command::new("ip");
                command.args(arguments);
                command
            },
            None,
        );
        assert!(output.ok, "ip {} failed: {}", arguments.join(" "), output.all());
    };
    ip(&["netns", "add", name]);
    ip(&["-n", name, "link", "set", "lo", "up"]);
    ip(&["-n", name, "link", "add", "uplink", "type", "bridge"]);
    for address in addresses {
        // Nobody else can have it, and a bridge without ports would look for others for ever.
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        ip(&[&["-n", name, "address", "add", address, "dev", "uplink"], nodad].concat());
    }
    ip(&["-n", name, "link", "set", "uplink", "up"]);
}

/// A port of loopback that nobody has at the moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
