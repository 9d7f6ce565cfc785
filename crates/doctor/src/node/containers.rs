//! Containers as the runtime knows them, in the form of pods with their statuses: rules read them like the API's.

use std::collections::BTreeMap;
use std::time::Duration;

use kedge_cri::{Runtime, WELL_KNOWN_ENDPOINTS, discover_endpoint, v1};
use kedge_diagnosis::Fact;
use serde_json::{Value, json};

use crate::node::reading::Reading;

/// A runtime that takes longer is asked once more: the machine may be busy.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A runtime that takes as long as this hangs.
const LAST_PATIENCE: Duration = Duration::from_secs(6);

/// Reads them. On a node a runtime is expected to answer, and whether it does is a fact.
pub(super) async fn read(endpoint: Option<&str>, is_node: bool) -> Reading {
    let mut reading = Reading::default();
    let late = |_| Err(format!("the runtime does not answer within {} s", LAST_PATIENCE.as_secs()));
    let pods = match tokio::time::timeout(PATIENCE, all(endpoint)).await {
        Ok(pods) => pods,
        Err(_) => tokio::time::timeout(LAST_PATIENCE, all(endpoint)).await.unwrap_or_else(late),
    };
    if is_node && nix::unistd::geteuid().is_root() {
        let of = endpoint.unwrap_or("any of the usual sockets").to_owned();
        let value = f64::from(u8::from(pods.is_ok()));
        reading.measure("crictl version", "runtime_answers", &of, value, None);
    }
    match pods {
        Ok(pods) => pods.into_iter().for_each(|pod| reading.add("crictl ps --all", Fact::Object(pod))),
        Err(why) => reading.miss("containers", why),
    }
    reading
}

async fn all(endpoint: Option<&str>) -> Result<Vec<Value>, String> {
    let endpoint = match endpoint {
        Some(endpoint) => endpoint.to_owned(),
        None => {
            let none = || format!("no runtime answers at {}", WELL_KNOWN_ENDPOINTS.join(", "));
            discover_endpoint().await.ok_or_else(none)?
        }
    };
    let runtime = Runtime::connect(&endpoint).await.map_err(|error| error.to_string())?;
    pods(&runtime).await
}

async fn pods(runtime: &Runtime) -> Result<Vec<Value>, String> {
    let containers = runtime.list_containers(None).await.map_err(|error| error.to_string())?;
    let mut latest: BTreeMap<(String, String, String), v1::Container> = BTreeMap::new();
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let key = (
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name"),
            label("io.kubernetes.container.name"),
        );
        // Of several runs of a container, the last one counts.
        if latest.get(&key).is_none_or(|known| known.created_at < container.created_at) {
            latest.insert(key, container);
        }
    }
    let mut pods: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for ((namespace, pod, name), container) in latest {
        let answer = match runtime.container_status(&container.id, false).await {
            Ok(answer) => answer,
            // It was removed since it was listed: the runtime answers, and has nothing to tell of it.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.to_string()),
        };
        let Some(status) = answer.status else { continue };
        pods.entry((namespace, pod)).or_default().push(container_status(&name, &container, &status));
    }
    let pod = |((namespace, name), statuses)| {
        json!({
            "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
            "spec": {}, "status": {"containerStatuses": statuses},
        })
    };
    Ok(pods.into_iter().map(pod).collect())
}

fn container_status(name: &str, container: &v1::Container, status: &v1::ContainerStatus) -> Value {
    let state = match status.state {
        state if state == v1::ContainerState::ContainerRunning as i32 => json!({"running": {}}),
        state if state == v1::ContainerState::ContainerExited as i32 => json!({"terminated": {
            "reason": status.reason, "message": status.message, "exitCode": status.exit_code,
        }}),
        _ => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    let attempt = container.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    json!({"name": name, "restartCount": attempt, "state": state})
}
