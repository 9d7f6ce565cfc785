//! A new cluster.
//!
//! Invariant: everything that can be refused is refused before anything is made; what was made by a creation that failed is
//! removed again, unless it is to be looked at.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_client::client_from_kubeconfig;
use kedge_lifecycle::{Finding, Severity, missing_programs};
use kube::api::{Api, ListParams};

use crate::addresses::{MOST_NODES, node_address, second_node_address};
use crate::credentials;
use crate::delete::delete;
use crate::error::Error;
use crate::images::load_images;
use crate::layout::{ClusterLayout, NodeLayout};
use crate::name::ClusterName;
use crate::node::{agent, ensure_segment, power_on};
use crate::record::{ClusterRecord, NodeRecord, Role};
use crate::switch;

const READY_PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);
/// Who failed so often at its start does not come up by trying again.
const MOST_STARTS: u32 = 4;
const PROGRAMS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("mount", "mount"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
];

/// What cluster to create.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The directory of all clusters.
    pub clusters: PathBuf,
    /// Its name.
    pub name: ClusterName,
    /// How many nodes, control planes among them.
    pub nodes: u8,
    /// How many of them have a control plane.
    pub control_planes: u8,
    /// Whether nodes, pods and Services have IPv6 besides IPv4.
    pub dual_stack: bool,
    /// The kubeconfig into which a context is merged.
    pub kubeconfig: Option<PathBuf>,
    /// Image archives to load on every node.
    pub images: Vec<PathBuf>,
    /// The kubelet's configuration on every node.
    pub kubelet_config: Option<PathBuf>,
    /// Further flags of `kedge up` on control planes.
    pub control_plane_flags: Vec<String>,
    /// Further flags of kedge on every node.
    pub node_flags: Vec<String>,
    /// What kedge logs on the nodes.
    pub log: String,
    /// Whether to leave everything as it is where the creation fails.
    pub retain: bool,
}

/// A cluster that was created.
#[derive(Debug, Clone)]
pub struct Created {
    /// What it is made of.
    pub record: ClusterRecord,
    /// Its own kubeconfig.
    pub kubeconfig: PathBuf,
    /// How long it took until every node was ready.
    pub took: Duration,
}

/// Creates a cluster and waits until every node is ready. `report` is told what is being done.
pub async fn create(options: CreateOptions, report: impl Fn(&str)) -> Result<Created, Error> {
    let began = Instant::now();
    let layout = ClusterLayout::new(&options.clusters, &options.name);
    check(&options, &layout)?;
    let kubelet_config = options.kubelet_config.as_deref().map(read).transpose()?;
    let record = plan(&options, &layout, free_port()?, kubelet_config);
    let made = make(&options, &layout, &record, &report).await;
    match made {
        Ok(()) => Ok(Created { kubeconfig: layout.kubeconfig(), record, took: began.elapsed() }),
        Err(error) if options.retain => Err(error),
        Err(error) => {
            report("removing what was made");
            delete(&options.clusters, &options.name)?;
            Err(error)
        }
    }
}

/// Everything that is wrong before anything is made.
fn check(options: &CreateOptions, layout: &ClusterLayout) -> Result<(), Error> {
    let refuse = |flag, value: u8, why: &str| Error::Flag { flag, value: value.to_string(), why: why.to_owned() };
    if options.nodes == 0 || options.nodes > MOST_NODES {
        return Err(refuse("--nodes", options.nodes, &format!("a cluster has 1 to {MOST_NODES} nodes")));
    }
    if options.control_planes == 0 || options.control_planes > options.nodes {
        return Err(refuse("--control-planes", options.control_planes, "at least one node and at most all have one"));
    }
    if layout.root().exists() {
        return Err(Error::Exists { name: options.name.to_string() });
    }
    let findings = findings(&options.name, options.control_planes > 1);
    if findings.is_empty() { Ok(()) } else { Err(Error::Preflight { findings }) }
}

fn findings(name: &ClusterName, with_etcd: bool) -> Vec<Finding> {
    let error = |check, text: String| Finding { check, severity: Severity::Error, text };
    if !nix::unistd::geteuid().is_root() {
        let text = "nodes need root: they are made of namespaces, mounts and cgroups; run it as root".to_owned();
        return vec![error("IsPrivilegedUser", text)];
    }
    let mut findings = missing_programs(&PROGRAMS);
    if with_etcd {
        findings.extend(missing_programs(&[("etcd", "etcd-server")]));
    }
    let namespace = switch::path(name);
    if namespace.exists() {
        findings.push(error(
            "Namespace",
            format!(
                "the network namespace {} exists, of a cluster {name} in another directory; delete that one, or choose \
                 another name",
                namespace.display()
            ),
        ));
    }
    findings
}

fn plan(
    options: &CreateOptions,
    layout: &ClusterLayout,
    api_port: u16,
    kubelet_config: Option<String>,
) -> ClusterRecord {
    let role = |number| if number <= options.control_planes { Role::ControlPlane } else { Role::Worker };
    let node = |number| NodeRecord {
        name: options.name.node(number),
        address: node_address(number),
        second_address: options.dual_stack.then(|| second_node_address(number)),
        role: role(number),
    };
    ClusterRecord {
        name: options.name.clone(),
        created: Timestamp::now(),
        api_port,
        nodes: (1..=options.nodes).map(node).collect(),
        kubeconfigs: std::iter::once(layout.kubeconfig()).chain(options.kubeconfig.clone()).collect(),
        kubelet_config,
        control_plane_flags: options.control_plane_flags.clone(),
        node_flags: options.node_flags.clone(),
        log: options.log.clone(),
    }
}

async fn make(
    options: &CreateOptions,
    layout: &ClusterLayout,
    record: &ClusterRecord,
    report: &impl Fn(&str),
) -> Result<(), Error> {
    std::fs::create_dir_all(layout.root()).map_err(|source| Error::File {
        action: "make",
        path: layout.root().to_owned(),
        source,
    })?;
    record.write(layout)?;
    report("certificates");
    credentials::ensure(layout, record)?;
    report("network");
    ensure_segment(layout, record)?;
    for node in &record.nodes {
        report(&format!("node {}", node.name));
        power_on(layout, record, node)?;
    }
    report("waiting until every node is ready");
    wait_ready(layout, record).await?;
    if !options.images.is_empty() {
        report("loading images");
        load_images(&options.clusters, &options.name, &options.images)?;
    }
    Ok(())
}

/// Waits until every node of the record is ready.
async fn wait_ready(layout: &ClusterLayout, record: &ClusterRecord) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client_from_kubeconfig(&layout.kubeconfig()).await?);
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let ready = match nodes.list(&ListParams::default()).await {
            Ok(list) => {
                list.items.iter().filter(|node| is_ready(node)).filter_map(|node| node.metadata.name.clone()).collect()
            }
            // The API server is not there yet.
            Err(_) => Vec::new(),
        };
        let missing = record.nodes.iter().find(|node| !ready.contains(&node.name.to_string()));
        let Some(missing) = missing else { return Ok(()) };
        let failed = record.nodes.iter().find(|node| agent(&layout.node(&node.name)).starts >= MOST_STARTS);
        if let Some(node) = failed {
            return Err(not_ready(&layout.node(&node.name), node, "kedge ends again and again"));
        }
        if Instant::now() > deadline {
            let why = format!("it is not ready after {} s", READY_PATIENCE.as_secs());
            return Err(not_ready(&layout.node(&missing.name), missing, &why));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

fn not_ready(files: &NodeLayout, node: &NodeRecord, why: &str) -> Error {
    let log = std::fs::read_to_string(files.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n    ");
    Error::NotReached {
        what: format!("the node {}: {why}; the last it said:\n    {last}", node.name),
        advice: "with --retain everything stays to be looked at; logs are in nodes/<node>/shared/kedge.log of the \
                 cluster's directory"
            .to_owned(),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })
}

/// A port of loopback that nobody has now. Who takes it before the gateway does makes the creation fail.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    let port = address.map(|address| address.port());
    port.map_err(|source| Error::Spawn { command: "listen on 127.0.0.1".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let check = |nodes, control_planes, text: &str| {
            let options = CreateOptions {
                clusters: dir.path().to_owned(),
                name: "demo".parse().unwrap(),
                nodes,
                control_planes,
                dual_stack: false,
                kubeconfig: None,
                images: Vec::new(),
                kubelet_config: None,
                control_plane_flags: Vec::new(),
                node_flags: Vec::new(),
                log: "info".to_owned(),
                retain: false,
            };
            let layout = ClusterLayout::new(&options.clusters, &options.name);
            let error = super::check(&options, &layout).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        check(0, 1, "a cluster has 1 to 64 nodes");
        check(65, 1, "a cluster has 1 to 64 nodes");
        check(1, 0, "at least one node");
        check(1, 2, "at most all");
        assert!(!dir.path().join("demo").exists());
        std::fs::create_dir(dir.path().join("demo")).unwrap();
        check(1, 1, "there is a cluster demo already");
    }
}
