//! What the container runtime says about one pod, in the form that deciding code reads.
//!
//! Pure data; `relist.rs` fills it. Invariant: sandboxes and containers are sorted newest first.

use std::collections::HashMap;

use kedge_cri::{StopSignal, v1};

use crate::labels::{self, ContainerNotes};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerPhase {
    Created,
    Running,
    Exited,
    Unknown,
}

impl ContainerPhase {
    pub(crate) fn from_cri(state: i32) -> Self {
        match v1::ContainerState::try_from(state) {
            Ok(v1::ContainerState::ContainerCreated) => Self::Created,
            Ok(v1::ContainerState::ContainerRunning) => Self::Running,
            Ok(v1::ContainerState::ContainerExited) => Self::Exited,
            _ => Self::Unknown,
        }
    }
}

/// One container of the runtime; times are nanoseconds since 1970, zero where they do not apply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox_id: String,
    pub(crate) phase: ContainerPhase,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    pub(crate) log_path: String,
    pub(crate) notes: ContainerNotes,
    pub(crate) resources: Option<v1::LinuxContainerResources>,
    /// Whom the first process runs as, where the runtime says so.
    pub(crate) user: Option<v1::LinuxContainerUser>,
    /// What ends it, where the runtime says so.
    pub(crate) stop_signal: Option<StopSignal>,
}

impl ContainerRecord {
    /// Ended with exit code 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.phase == ContainerPhase::Exited && self.exit_code == 0
    }

    pub(crate) fn running(&self) -> bool {
        self.phase == ContainerPhase::Running
    }
}

/// One sandbox of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created_at: i64,
    pub(crate) ips: Vec<String>,
    pub(crate) host_network: bool,
}

/// Everything the runtime has of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodRuntime {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) sandboxes: Vec<SandboxRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
}

impl PodRuntime {
    /// The newest container of a name.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container of a name, where it belongs to the newest sandbox.
    pub(crate) fn container_in_sandbox(&self, name: &str) -> Option<&ContainerRecord> {
        let sandbox = self.sandboxes.first()?;
        self.container(name).filter(|container| container.sandbox_id == sandbox.id)
    }

    /// The containers of a name, newest first.
    pub(crate) fn attempts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerRecord> + 'a {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// The newest sandbox, where it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxRecord> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Whether any container runs (or may run).
    pub(crate) fn any_running(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.phase, ContainerPhase::Running | ContainerPhase::Unknown))
    }

    pub(crate) fn sort(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        self.containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    }
}

/// A sandbox from its CRI status. Runtimes have an order of addresses of their own; that of the node's is the pods'.
pub(crate) fn sandbox_record(status: &v1::PodSandboxStatus, ipv6_first: bool) -> SandboxRecord {
    let network = status.network.as_ref();
    let mut ips: Vec<String> =
        network.map(|network| network.ip.clone()).into_iter().filter(|ip| !ip.is_empty()).collect();
    ips.extend(network.into_iter().flat_map(|network| network.additional_ips.iter().map(|ip| ip.ip.clone())));
    let ips = order_by_family(ips, ipv6_first);
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
    let options = namespaces.and_then(|namespaces| namespaces.options.as_ref());
    SandboxRecord {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        created_at: status.created_at,
        ips,
        host_network: options.is_some_and(|options| options.network == v1::NamespaceMode::Node as i32),
    }
}

/// At most one address of each family, in the order of the node's families.
fn order_by_family(ips: Vec<String>, ipv6_first: bool) -> Vec<String> {
    let of_family = |ipv6: bool| ips.iter().find(|ip| ip.contains(':') == ipv6).cloned();
    [of_family(ipv6_first), of_family(!ipv6_first)].into_iter().flatten().collect()
}

/// A container from its CRI status; the termination message is read by the caller.
pub(crate) fn container_record(status: &v1::ContainerStatus, sandbox_id: &str) -> ContainerRecord {
    let image = status.image.as_ref().map(|image| match image.user_specified_image.is_empty() {
        true => image.image.clone(),
        false => image.user_specified_image.clone(),
    });
    ContainerRecord {
        id: status.id.clone(),
        name: container_name(&status.labels, status.metadata.as_ref()),
        sandbox_id: sandbox_id.to_owned(),
        phase: ContainerPhase::from_cri(status.state),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image: image.unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        log_path: status.log_path.clone(),
        notes: labels::container_notes(&status.annotations),
        resources: status.resources.as_ref().and_then(|resources| resources.linux.clone()),
        user: status.user.as_ref().and_then(|user| user.linux.clone()),
        stop_signal: StopSignal::from_cri(status.stop_signal),
    }
}

fn container_name(labels: &HashMap<String, String>, metadata: Option<&v1::ContainerMetadata>) -> String {
    let labelled = labels.get(labels::CONTAINER_NAME).cloned();
    labelled.unwrap_or_else(|| metadata.map(|metadata| metadata.name.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_the_nodes_order() {
        let check = |ips: &[&str], ipv6_first: bool, expected: &[&str]| {
            let ips = ips.iter().map(|&ip| ip.to_owned()).collect();
            assert_eq!(order_by_family(ips, ipv6_first), expected);
        };
        check(&[], false, &[]);
        check(&["10.244.0.2"], true, &["10.244.0.2"]);
        check(&["10.244.0.2", "fd00::2"], false, &["10.244.0.2", "fd00::2"]);
        check(&["10.244.0.2", "fd00::2"], true, &["fd00::2", "10.244.0.2"]);
        check(&["fd00::2", "fd00::3", "10.244.0.2"], false, &["10.244.0.2", "fd00::2"]);
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Records for the tests of deciding code.

    use super::*;

    pub(crate) fn sandbox(attempt: u32, ready: bool) -> SandboxRecord {
        SandboxRecord {
            id: format!("sandbox-{attempt}"),
            attempt,
            ready,
            created_at: i64::from(attempt) + 1,
            ips: vec!["10.244.0.2".to_owned()],
            host_network: false,
        }
    }

    pub(crate) fn container(name: &str, phase: ContainerPhase, exit_code: i32) -> ContainerRecord {
        ContainerRecord {
            id: format!("{name}-id"),
            name: name.to_owned(),
            sandbox_id: "sandbox-0".to_owned(),
            phase,
            created_at: 1_000_000_000,
            started_at: 2_000_000_000,
            finished_at: if phase == ContainerPhase::Exited { 3_000_000_000 } else { 0 },
            exit_code,
            reason: match (phase, exit_code) {
                (ContainerPhase::Exited, 0) => "Completed".to_owned(),
                (ContainerPhase::Exited, _) => "Error".to_owned(),
                _ => String::new(),
            },
            message: String::new(),
            image: "image:1".to_owned(),
            image_ref: "sha256:1".to_owned(),
            log_path: String::new(),
            notes: ContainerNotes { hash: String::new(), ..ContainerNotes::default() },
            resources: None,
            user: None,
            stop_signal: None,
        }
    }

    pub(crate) fn runtime(sandboxes: Vec<SandboxRecord>, containers: Vec<ContainerRecord>) -> PodRuntime {
        let mut runtime = PodRuntime {
            uid: "uid".to_owned(),
            name: "pod".to_owned(),
            namespace: "ns".to_owned(),
            sandboxes,
            containers,
        };
        runtime.sort();
        runtime
    }
}
