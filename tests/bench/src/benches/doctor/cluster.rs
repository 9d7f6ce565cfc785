//! A simulated API server: it answers lists, page by page, with objects that it makes as it goes. HTTP/1.1 without TLS on
//! 127.0.0.1, one thread to a connection.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use serde_json::json;

/// How large it is, and what is wrong in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cluster {
    pub(super) nodes: usize,
    pub(super) pods: usize,
    /// The first nodes are silent.
    pub(super) silent_nodes: usize,
    /// The first pods crash.
    pub(super) crashing_pods: usize,
    pub(super) events: usize,
}

/// The server; its threads end with the process.
pub(super) struct Simulated {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Simulated {
    pub(super) fn start(cluster: Cluster) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, sent) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let (templates, counter) = (Arc::new(Templates::new(cluster)), sent.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (templates, counter) = (templates.clone(), counter.clone());
                // A client that hangs up ends its thread, and nothing else.
                std::thread::spawn(move || drop(serve(stream, &templates, &counter)));
            }
        });
        Ok(Self { address, sent })
    }

    pub(super) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "clusters": [{"name": "bench", "cluster": {"server": server}}],
            "users": [{"name": "bench", "user": {}}],
        })
        .to_string()
    }

    /// What it answered so far.
    pub(super) fn megabytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) / 1_000_000
    }
}

fn serve(stream: TcpStream, templates: &Templates, sent: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = first.split_whitespace().nth(1).unwrap_or_default();
        let body = templates.page(path);
        sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all(head.as_bytes())?;
        writer.write_all(body.as_bytes())?;
    }
}

/// Stand for an object's number and its node's number.
const NUMBER: &str = "@@";
const NODE: &str = "@node@";

struct Templates {
    cluster: Cluster,
    node: [String; 2],
    pod: [String; 2],
    event: String,
}

impl Templates {
    fn new(cluster: Cluster) -> Self {
        let node = |is_silent| node(is_silent).to_string();
        let pod = |crashes| pod(crashes).to_string();
        Self { cluster, node: [node(false), node(true)], pod: [pod(false), pod(true)], event: event().to_string() }
    }

    /// The page of a list that a request asks for.
    fn page(&self, path: &str) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let (start, limit) = (value("continue").unwrap_or_default(), value("limit").unwrap_or(500));
        let total = match path {
            "/api/v1/nodes" => self.cluster.nodes,
            "/api/v1/pods" => self.cluster.pods,
            "/api/v1/events" => self.cluster.events,
            _ => 0,
        };
        let end = total.min(start + limit);
        let next = if end < total { end.to_string() } else { String::new() };
        let mut body = format!(r#"{{"metadata":{{"continue":"{next}"}},"items":["#);
        for number in start..end {
            let template = match path {
                "/api/v1/nodes" => &self.node[usize::from(number < self.cluster.silent_nodes)],
                "/api/v1/pods" => &self.pod[usize::from(number < self.cluster.crashing_pods)],
                _ => &self.event,
            };
            let node = number % self.cluster.nodes;
            let object = template.replace(NUMBER, &number.to_string()).replace(NODE, &node.to_string());
            let _ = write!(body, "{}{object}", if number > start { "," } else { "" });
        }
        body.push_str("]}");
        body
    }
}

/// A node, with a number to be put in.
pub(super) fn node(is_silent: bool) -> serde_json::Value {
    let condition = |kind: &str, status: &str| {
        // Not all at once: they are silent each for itself.
        json!({"type": kind, "status": status, "reason": "Kubelet", "message": "kubelet says so",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let images: Vec<_> = (0..40)
        .map(|image| json!({"names": [format!("registry.example/app-{image}@sha256:0123456789abcdef"), format!("registry.example/app-{image}:v1")], "sizeBytes": 1_000_000}))
        .collect();
    json!({
        "metadata": {"name": "node-@@", "uid": "u-@@", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": "node-@@", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "bench://@@"},
        "status": {
            "capacity": {"cpu": "32", "memory": "64Gi", "pods": "110"}, "allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.168.1.1"}, {"type": "Hostname", "address": "node-@@"}],
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"),
                condition("Ready", if is_silent { "Unknown" } else { "True" })],
            "nodeInfo": {"machineID": "m-@@", "systemUUID": "s-@@", "bootID": "b-@@", "kernelVersion": "6.1.0", "osImage": "Debian",
                "containerRuntimeVersion": "containerd://2.1.0", "kubeletVersion": "v1.36.0", "operatingSystem": "linux", "architecture": "amd64"},
            "images": images,
        },
    })
}

/// A pod, with a number and its node's to be put in.
pub(super) fn pod(crashes: bool) -> serde_json::Value {
    let state = match crashes {
        true => {
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}})
        }
        false => json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
    };
    let last = if crashes { json!({"terminated": {"reason": "Error", "exitCode": 1}}) } else { json!({}) };
    let ready = if crashes { "False" } else { "True" };
    json!({
        "metadata": {"name": "web-@@", "namespace": "shop", "uid": "u-@@", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"}, "generateName": "web-",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {"f:conditions": {}, "f:containerStatuses": {}}}}]},
        "spec": {"nodeName": "node-@node@", "serviceAccountName": "default", "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "image": "registry.example/app-1:v1", "env": [{"name": "PORT", "value": "8080"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}], "hostIP": "192.168.1.1",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": ready}, {"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "c", "image": "registry.example/app-1:v1", "imageID": "sha256:0123", "containerID": "containerd://c-@@",
                "ready": !crashes, "started": !crashes, "restartCount": if crashes { 7 } else { 0 }, "state": state, "lastState": last}]},
    })
}

/// An event that is over: its pod does well.
fn event() -> serde_json::Value {
    json!({
        "metadata": {"name": "web-149999.@@", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}, "type": "Warning", "reason": "FailedMount",
        "message": "MountVolume.SetUp failed for volume \"c\" : configmap \"settings\" not found",
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-149999"},
    })
}
