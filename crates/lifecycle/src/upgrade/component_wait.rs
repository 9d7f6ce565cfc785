//! Waiting until the kubelet runs a static pod from a new manifest, and what is in it is well.
//!
//! The container runtime and the component itself are asked, so that it also works for the API server. Invariant: what ran
//! before the manifest changed is never taken for what it asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kedge_cri::{Runtime, v1};
use serde_json::Value;
use tokio::time::Instant;

use crate::health_wait::probe;
use crate::timeouts::go_duration;

const POLL: Duration = Duration::from_millis(200);
const ONE_TRY: Duration = Duration::from_secs(10);
const NAME: &str = "io.kubernetes.pod.name";
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const UID: &str = "io.kubernetes.pod.uid";
/// A container that has ended so often does not start.
const FAILURES: u32 = 2;
const LOG_LINES: usize = 4;

/// A component's pod on this machine.
pub(super) struct ComponentPod<'a> {
    /// The container runtime.
    pub(super) runtime: &'a Runtime,
    /// The name of the pod: that of the component and the node.
    pub(super) name: String,
    /// How long it may take to become well.
    pub(super) patience: Duration,
}

/// What was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// It runs in a pod of this uid.
    Running(String),
    /// Nothing of the new pod yet, or it is being made.
    NotYet(String),
    /// It does not start.
    Failed(String),
}

impl ComponentPod<'_> {
    /// The uid of the pod that is there.
    pub(super) async fn uid(&self) -> Option<String> {
        let sandbox = self.newest_sandbox().await?;
        sandbox.labels.get(UID).cloned()
    }

    /// Waits for a pod of another uid than `before` whose component is well; returns its uid.
    pub(super) async fn wait(&self, before: Option<&str>, health: Option<&Health>) -> Result<String, String> {
        let deadline = Instant::now() + self.patience;
        loop {
            let why = match self.look(before).await {
                Seen::Running(uid) => match is_well(health).await {
                    Ok(()) => return Ok(uid),
                    Err(why) => why,
                },
                Seen::Failed(why) => return Err(why),
                Seen::NotYet(why) => why,
            };
            if Instant::now() > deadline {
                return Err(format!("{} is not healthy after {}: {why}", self.name, go_duration(self.patience)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn newest_sandbox(&self) -> Option<v1::PodSandbox> {
        let labels = [(NAME, self.name.as_str()), (NAMESPACE, "kube-system")];
        let label_selector = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let filter = v1::PodSandboxFilter { label_selector, ..v1::PodSandboxFilter::default() };
        let sandboxes = self.runtime.list_pod_sandboxes(Some(filter)).await.ok()?;
        sandboxes.into_iter().max_by_key(|sandbox| sandbox.created_at)
    }

    async fn look(&self, before: Option<&str>) -> Seen {
        let Some(sandbox) = self.newest_sandbox().await else {
            return Seen::NotYet("there is no pod of it".to_owned());
        };
        let uid = sandbox.labels.get(UID).cloned().unwrap_or_default();
        if before == Some(uid.as_str()) {
            return Seen::NotYet("the kubelet has not taken up the new manifest".to_owned());
        }
        let filter = v1::ContainerFilter { pod_sandbox_id: sandbox.id, ..v1::ContainerFilter::default() };
        let containers = self.runtime.list_containers(Some(filter)).await.unwrap_or_default();
        let Some(newest) = containers.into_iter().max_by_key(|container| container.created_at) else {
            return Seen::NotYet("its container is not made yet".to_owned());
        };
        let attempt = newest.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        match newest.state() {
            v1::ContainerState::ContainerRunning => Seen::Running(uid),
            v1::ContainerState::ContainerExited if attempt + 1 >= FAILURES => {
                Seen::Failed(format!("{} does not start: {}", self.name, self.end_of(&newest.id).await))
            }
            state => Seen::NotYet(format!("its container is {}", state.as_str_name())),
        }
    }

    /// How a container ended, and its last words.
    async fn end_of(&self, id: &str) -> String {
        let Some(status) = self.runtime.container_status(id, false).await.ok().and_then(|answer| answer.status) else {
            return "its container ended".to_owned();
        };
        let last = last_lines(Path::new(&status.log_path));
        let words = if last.is_empty() { String::new() } else { format!(": {last}") };
        format!("its container ended with exit code {}{words}", status.exit_code)
    }
}

/// The last lines of a container's log without their time stamps.
fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let said = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    let said: Vec<&str> = said.map(str::trim).filter(|line| !line.is_empty()).collect();
    said[said.len().saturating_sub(LOG_LINES)..].join(" / ")
}

/// Where a component says how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    address: SocketAddr,
    path: String,
    has_tls: bool,
}

impl Health {
    /// What a static pod's own probes ask: readiness, where it has that, else liveness.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let container = &pod["spec"]["containers"][0];
        let asked = ["readinessProbe", "livenessProbe"].into_iter().map(|probe| &container[probe]["httpGet"]);
        let asked = asked.into_iter().find(|probe| probe.is_object())?;
        let port = match asked["port"].as_u64() {
            Some(port) => port,
            None => {
                let ports = container["ports"].as_array()?;
                ports.iter().find(|port| port["name"] == asked["port"])?["containerPort"].as_u64()?
            }
        };
        Some(Self {
            address: SocketAddr::new(asked["host"].as_str()?.parse().ok()?, u16::try_from(port).ok()?),
            path: asked["path"].as_str()?.to_owned(),
            has_tls: asked["scheme"] == "HTTPS",
        })
    }
}

async fn is_well(health: Option<&Health>) -> Result<(), String> {
    let Some(health) = health else { return Ok(()) };
    let asked = probe(health.address, &health.path, health.has_tls);
    match tokio::time::timeout(ONE_TRY, asked).await {
        Ok(Ok(200)) => Ok(()),
        Ok(Ok(status)) => Err(format!("{} answers {status}", health.path)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ONE_TRY.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostLayout;
    use crate::manifests::{control_plane_pod, etcd_pod, tests::facts};

    #[test]
    fn manifests_say_where_components_are_asked() {
        let layout = HostLayout::default();
        let of = |component: &str| {
            let health = Health::of(&control_plane_pod(component, &facts(), &layout)).unwrap();
            (health.address.to_string(), health.path, health.has_tls)
        };
        assert_eq!(of("kube-apiserver"), ("192.0.2.2:6443".to_owned(), "/readyz".to_owned(), true));
        assert_eq!(of("kube-controller-manager"), ("127.0.0.1:10257".to_owned(), "/healthz".to_owned(), true));
        let etcd = Health::of(&etcd_pod(&facts(), &layout, &[])).unwrap();
        assert_eq!((etcd.address.port(), etcd.path.as_str(), etcd.has_tls), (2381, "/health", false));
        assert_eq!(Health::of(&serde_json::json!({"spec": {"containers": [{"name": "a"}]}})), None);
    }

    #[test]
    fn last_words_are_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let line = |text: &str| format!("2026-11-21T13:00:00.1Z stderr F {text}\n");
        std::fs::write(&path, ["a", "b b", "", "c", "d", "e"].map(line).concat()).unwrap();
        assert_eq!(last_lines(&path), "b b / c / d / e");
        assert_eq!(last_lines(Path::new("/nonexistent")), "");
    }
}
