//! Devices of pods: got before containers start, given back after they have ended, and what they change about a container.
//!
//! What is got and from whom is the business of the crate `devices`; events and refusals are here. Invariant: a pod that can't have
//! a plug-in's devices is refused; one whose claims are not prepared yet waits.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kedge_client::EventType;
use kedge_cri::v1;
use kedge_devices::Edits;
use serde_json::Value;

use crate::agent::Agent;
use crate::spec;
use crate::status::Stop;

/// Amounts of resources, by name.
type NodeAmounts = BTreeMap<String, Quantity>;

const RETRY: Duration = Duration::from_secs(1);
/// As long as upstream waits at most between two attempts for one pod.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Why a pod's containers can't start yet, or never.
#[derive(Debug)]
pub(crate) enum DeviceProblem {
    /// To be tried again.
    Wait(Duration),
    /// The node refuses the pod.
    Refuse(Stop),
}

/// Gets a pod the devices that it asks for.
pub(crate) async fn get(agent: &Agent, pod: &Pod) -> Result<(), DeviceProblem> {
    if let Err(why) = agent.devices.allocate(pod).await {
        let reason = "UnexpectedAdmissionError".to_owned();
        let message = format!("Allocate failed due to {why}, which is unexpected");
        agent.events.pod(pod, EventType::Warning, &reason, message.clone());
        let message = format!("Pod was rejected: {message}");
        return Err(DeviceProblem::Refuse(Stop { reason, message, rejected: true }));
    }
    agent.devices.prepare(pod).await.map_err(|why| {
        let message = format!("Failed to prepare dynamic resources: {why}");
        agent.events.pod(pod, EventType::Warning, "FailedPrepareDynamicResources", message);
        DeviceProblem::Wait(RETRY)
    })
}

/// Gives back what a pod had. Its end waits for that, as long as a driver is away.
pub(crate) async fn give_back(agent: &Agent, pod: &Pod) {
    let mut pause = RETRY;
    while let Err(error) = agent.devices.release(spec::uid(pod)).await {
        tracing::warn!(pod = spec::format_pod(pod), error, "a pod's devices could not be given back; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}

/// What a container's devices change about it.
pub(crate) async fn edits(agent: &Agent, pod: &Pod, container: &Container) -> Result<Edits, String> {
    let knows_cdi = *agent.knows_cdi.get_or_init(|| knows_cdi(agent)).await;
    agent.devices.container(pod, container, knows_cdi).await
}

/// Whether the runtime does itself what CDI specs say: containerd where it is told to, CRI-O always.
async fn knows_cdi(agent: &Agent) -> bool {
    let Ok(status) = agent.runtime.status(true).await else { return false };
    let config: Value = status.info.get("config").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let name = agent.runtime.version().await.map(|version| version.runtime_name).unwrap_or_default();
    name == "cri-o" || config["enableCDI"] == true
}

/// Changes a container's configuration: variables of the container's own spec win.
pub(crate) fn apply(edits: Edits, config: &mut v1::ContainerConfig) {
    let own: Vec<v1::KeyValue> = std::mem::take(&mut config.envs);
    let added = edits.envs.into_iter().filter(|(key, _)| !own.iter().any(|own| own.key == *key));
    config.envs = added.map(|(key, value)| v1::KeyValue { key, value }).collect();
    config.envs.extend(own);
    config.devices.extend(edits.devices);
    config.annotations.extend(edits.annotations);
    config.cdi_devices.extend(edits.cdi_devices.into_iter().map(|name| v1::CdiDevice { name }));
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(context) = context {
        context.supplemental_groups.extend(edits.groups);
    }
}

/// Adds the plug-ins' devices to what the node has.
pub(crate) fn add_amounts(agent: &Agent, capacity: &mut NodeAmounts, allocatable: &mut NodeAmounts) {
    let (have, usable) = agent.devices.amounts();
    for (amounts, counts) in [(capacity, have), (allocatable, usable)] {
        amounts.extend(counts.into_iter().map(|(name, count)| (name, Quantity(count.to_string()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_changed() {
        let pair = |key: &str, value: &str| v1::KeyValue { key: key.to_owned(), value: value.to_owned() };
        let mut config = v1::ContainerConfig {
            envs: vec![pair("OWN", "1")],
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext::default()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let edits = Edits {
            envs: [("OWN", "2"), ("GPU", "0")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            cdi_devices: vec!["example.com/gpu=0".to_owned()],
            groups: vec![44],
            ..Edits::default()
        };
        apply(edits, &mut config);
        assert_eq!(config.envs, [pair("GPU", "0"), pair("OWN", "1")]);
        assert_eq!(config.cdi_devices[0].name, "example.com/gpu=0");
        assert_eq!(config.linux.unwrap().security_context.unwrap().supplemental_groups, [44]);
    }
}
