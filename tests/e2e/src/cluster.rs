//! Several hosts with one cluster: `kedge cluster` makes them, kubectl reaches it over the machine's loopback address.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kedge_skip::{skip, skipped_without_root};
use serde_json::Value;

use crate::binary::{busybox_image, kedge_binary};
use crate::host::CALM;
use crate::kubectl::{Kubectl, Output, run};
use crate::pods::BUSYBOX;

const KUBELET_HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What kind of cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many nodes; node 1 has the control plane.
    pub nodes: u8,
    /// Further flags of `kedge cluster create`.
    pub flags: Vec<String>,
    /// Fields of the kubelets' configuration, as YAML; where absent, nodes evict only when nothing is left.
    pub kubelet: Option<String>,
}

/// A cluster of several nodes with [`BUSYBOX`] loaded on each; gone when this is dropped.
pub struct Cluster {
    binary: PathBuf,
    name: String,
    dir: tempfile::TempDir,
    nodes: u8,
    /// kubectl for it.
    pub kubectl: Kubectl,
}

impl Cluster {
    /// A cluster whose nodes are all ready; `None` (with the reason said) where that can't be here.
    pub fn up(options: &ClusterOptions) -> Option<Self> {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let Some(binary) = kedge_binary() else {
            skip(&test, "there is no release binary; build it with `cargo xtask build`");
            return None;
        };
        if skipped_without_root(&test) {
            return None;
        }
        let name = format!("e2e-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("kedge-e2e-").tempdir().expect("a directory can be made");
        let kubectl = Kubectl {
            program: std::env::var("KEDGE_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned()),
            kubeconfig: dir.path().join("kubeconfig"),
            namespace: None,
        };
        let cluster = Self { binary, name, dir, nodes: options.nodes, kubectl };
        cluster.create(options);
        Some(cluster)
    }

    fn create(&self, options: &ClusterOptions) {
        let archive = self.file("busybox.tar");
        busybox_image(BUSYBOX, &archive);
        let configuration = self.file("kubelet.yaml");
        let fields = options.kubelet.as_deref().unwrap_or(CALM);
        std::fs::write(&configuration, format!("{KUBELET_HEAD}{fields}")).expect("a file can be written");
        let nodes = options.nodes.to_string();
        let mut arguments = vec!["create", "--retain", "--nodes", &nodes, "--image", text(&archive)];
        arguments.extend(["--kubelet-config", text(&configuration), "--kubeconfig", text(&self.kubectl.kubeconfig)]);
        arguments.extend(options.flags.iter().map(String::as_str));
        arguments.push(&self.name);
        let created = self.kedge(&arguments);
        assert!(created.ok, "{}{}", created.all(), self.logs());
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of a node; numbers begin with 1.
    pub fn node(&self, number: u8) -> String {
        format!("{}-{number}", self.name)
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| self.node(number)).collect()
    }

    /// The address of a node.
    pub fn address(&self, number: u8) -> String {
        format!("172.20.0.{}", 10 + number)
    }

    /// Runs `kedge cluster` with further arguments.
    pub fn kedge(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.arg("cluster").args(arguments).env("KEDGE_CLUSTERS_DIR", self.clusters());
        command.env_remove("KUBECONFIG").env("KEDGE_LOG", "info");
        run(command, None)
    }

    /// Runs `kedge cluster node` with further arguments; panics where it fails.
    pub fn node_command(&self, arguments: &[&str]) {
        let output = self.kedge(&[&["node"][..], arguments].concat());
        assert!(output.ok, "kedge cluster node {} failed:\n{}", arguments.join(" "), output.all());
    }

    /// Runs a shell script on a node.
    pub fn try_exec(&self, node: &str, script: &str) -> Output {
        self.kedge(&["exec", node, "--", "sh", "-c", script])
    }

    /// The output of a shell script on a node; panics where it fails.
    pub fn exec(&self, node: &str, script: &str) -> String {
        let output = self.try_exec(node, script);
        assert!(output.ok, "on {node}, {script:?} failed:\n{}", output.all());
        output.stdout
    }

    /// What the components of a node report, by name.
    pub fn component(&self, node: &str, name: &str) -> Value {
        let status = self.try_exec(node, "kedge status --output json");
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or(Value::Null);
        let components = status["components"].as_array().cloned().unwrap_or_default();
        components.into_iter().find(|component| component["component"] == name).unwrap_or(Value::Null)
    }

    /// A path for a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where `kedge cluster` keeps this cluster.
    pub fn clusters(&self) -> PathBuf {
        self.dir.path().join("clusters")
    }

    /// Where it keeps a node.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.clusters().join(&self.name).join("nodes").join(node)
    }

    /// The last lines of every node's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            for file in ["init.log", "shared/kedge.log"] {
                let log = std::fs::read_to_string(self.node_dir(&node).join(file)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(30)..].join("\n");
                text.push_str(&format!("--- {node}: {file} ---\n{last}\n"));
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let deleted = self.kedge(&["delete", &self.name]);
        if !deleted.ok {
            eprintln!("kedge cluster delete failed:\n{}", deleted.all());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
