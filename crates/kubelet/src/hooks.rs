//! Lifecycle hooks: what runs after a container started and before it is stopped.
//!
//! Invariant: a hook's own text never reaches an event, because it may hold secrets.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

use crate::agent::Agent;
use crate::probes::http::{HttpTarget, get};
use crate::probes::resolve_port;
use crate::spec;

/// Runs a hook to its end. The error text is for the log and the container's status.
pub(crate) async fn run(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = agent.runtime.exec_sync(container_id, command.clone(), None).await;
        return match answer {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let output =
                    String::from_utf8_lossy(&answer.stderr).into_owned() + &String::from_utf8_lossy(&answer.stdout);
                Err(format!("command '{}' exited with {}: {output}", command.join(" "), answer.exit_code))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &hook.http_get {
        return http(agent, pod, container, action).await;
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(format!("invalid handler: {hook:?}"))
}

async fn http(agent: &Agent, pod: &Pod, container: &Container, action: &HTTPGetAction) -> Result<(), String> {
    let state = agent.states.get(spec::uid(pod));
    let pod_ip = match spec::host_network(pod) {
        true => agent.config.node_ip.to_string(),
        false => state.ready_sandbox().and_then(|sandbox| sandbox.ips.first().cloned()).unwrap_or_default(),
    };
    let port = resolve_port(&action.port, container)?;
    let target = HttpTarget::new(action, &pod_ip, port, "kube-lifecycle/1.36");
    // Upstream looks at whether the request succeeded, not at the status it got.
    let answer = tokio::time::timeout(Duration::from_secs(60), get(&target)).await;
    match answer {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(format!("Get \"{}\": context deadline exceeded", target.url())),
    }
}
