//! The configuration of a pod's sandbox.
//!
//! Invariant: what a restarted kubelet must know again is in the labels and annotations.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;

use crate::agent::Agent;
use crate::labels;
use crate::network_files;
use crate::resources;
use crate::security;
use crate::spec;

/// What the runtime is asked for; `attempt` counts the pod's sandboxes, `handler` is the runtime class's.
pub(crate) fn sandbox_config(
    agent: &Agent,
    pod: &Pod,
    attempt: u32,
    handler: &str,
) -> Result<v1::PodSandboxConfig, String> {
    let config = &agent.config;
    let users = agent.users_of(pod, handler)?;
    let host = match &config.resolv_conf {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("failed to read {}: {error}", path.display()))?
        }
        None => String::new(),
    };
    let host = network_files::parse_resolv_conf(&host);
    let hostname = match spec::host_network(pod) {
        true => String::new(),
        false => network_files::sandbox_hostname(pod, &config.cluster_domain)?,
    };
    let log_directory = config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod));
    let annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    Ok(v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: log_directory.to_string_lossy().into_owned(),
        dns_config: Some(network_files::dns_config(pod, &host, &config.cluster_dns, &config.cluster_domain)),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations,
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: agent.cgroups.parent_of(pod),
            security_context: Some(security::sandbox_context(pod, users)),
            sysctls: security::sysctls(pod),
            overhead: None,
            resources: Some(resources::pod_resources(pod)),
        }),
        windows: None,
    })
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_restartable_init(container));
    let ports = spec::containers(pod).iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp as i32,
                Some("SCTP") => v1::Protocol::Sctp as i32,
                _ => v1::Protocol::Tcp as i32,
            },
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
