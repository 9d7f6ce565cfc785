//! Somebody's word before the containers of a new sandbox start: the rules about a pod are to be in force before its
//! first packet is on its way.
//!
//! Not a judge: whoever has the word only makes the pod wait. Invariant: a pod waits for a bounded time, because a node
//! without policies must not stand still where policies do not work; that it went on is said.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;

use crate::agent::Agent;
use crate::spec;

/// Waited for with a pod and its addresses; `false` where nobody is there to ask any more.
pub type PodGate = Arc<dyn Fn(Pod, Vec<IpAddr>) -> BoxFuture<'static, bool> + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the word about a pod that has a sandbox with these addresses.
pub(crate) async fn pass(agent: &Agent, pod: &Pod, ips: &[String]) {
    let Some(gate) = agent.pod_gate.as_ref().filter(|_| !spec::host_network(pod)) else { return };
    let ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        return;
    }
    match tokio::time::timeout(PATIENCE, gate(pod.clone(), ips)).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(pod = spec::format_pod(pod), "nobody enforces network policies; the pod starts"),
        Err(_) => tracing::warn!(
            pod = spec::format_pod(pod),
            "the rules of network policies are not in force after {} s; the pod starts",
            PATIENCE.as_secs()
        ),
    }
}
