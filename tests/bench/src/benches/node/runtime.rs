//! What the runtime, runc and the network plugins need for a pod when nobody else is involved.
//!
//! Invariant: the same image, network, processes, cgroups, mounts and confinement as the pods that the node is measured with.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kedge_cri::{PrivateContainerd, Runtime, v1};

/// The folder that stands for a service account's volume.
const CREDENTIALS: &str = "credentials";

/// The client of the containerd of a data directory, and its endpoint.
pub(super) async fn of(data_dir: &Path) -> Result<Runtime> {
    let found = PrivateContainerd::find(&data_dir.join("containerd")).await;
    let endpoint = found.context("no containerd runs for the data directory")?.endpoint();
    Ok(Runtime::connect(&endpoint).await?)
}

/// Makes sandboxes with a container one after the other; how long each took, in microseconds. Removes them.
pub(super) async fn bare_pods(runtime: &Runtime, image: &str, place: &Path, count: usize) -> Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut sandboxes = Vec::new();
    for index in 0..count {
        let sandbox = sandbox(&format!("bare-{index}"), place);
        let own = Path::new(&sandbox.log_directory).to_owned();
        std::fs::create_dir_all(own.join(CREDENTIALS))?;
        for file in ["hosts", "termination-log"] {
            std::fs::write(own.join(file), "")?;
        }
        let began = Instant::now();
        let id = runtime.run_pod_sandbox(sandbox.clone(), "").await?;
        let container = runtime.create_container(&id, container(image, &own), sandbox).await?;
        runtime.start_container(&container).await?;
        took.push(u32::try_from(began.elapsed().as_micros())?);
        sandboxes.push(id);
    }
    remove(runtime, sandboxes).await?;
    took.sort_unstable();
    Ok(took)
}

/// Removes every sandbox that is there.
pub(super) async fn remove_all(runtime: &Runtime) -> Result<()> {
    let sandboxes = runtime.list_pod_sandboxes(None).await?;
    remove(runtime, sandboxes.into_iter().map(|sandbox| sandbox.id).collect()).await
}

async fn remove(runtime: &Runtime, sandboxes: Vec<String>) -> Result<()> {
    for id in sandboxes {
        runtime.stop_pod_sandbox(&id).await?;
        runtime.remove_pod_sandbox(&id).await?;
    }
    Ok(())
}

/// What the kubelet asks for a pod of best effort without any wish of its own.
fn sandbox(name: &str, place: &Path) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: name.to_owned(),
        uid: name.to_owned(),
        namespace: "bench".to_owned(),
        attempt: 0,
    };
    let seccomp = v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
        ..Default::default()
    };
    let dns = v1::DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: ["bench.svc", "svc", ""].map(|part| format!("{part}.cluster.local")).to_vec(),
        options: vec!["ndots:5".to_owned()],
    };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: name.to_owned(),
        log_directory: place.join(name).display().to_string(),
        dns_config: Some(dns),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: format!("/kubepods/besteffort/{name}"),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(seccomp),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container with the mounts that the kubelet gives to every one: hosts, last words, credentials.
fn container(image: &str, place: &Path) -> v1::ContainerConfig {
    let mount = |name: &str, target: &str, readonly| v1::Mount {
        container_path: target.to_owned(),
        host_path: place.join(name).display().to_string(),
        readonly,
        ..Default::default()
    };
    let context = v1::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces()),
        masked_paths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
            .map(str::to_owned)
            .to_vec(),
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
        mounts: vec![
            mount(CREDENTIALS, "/var/run/secrets/kubernetes.io/serviceaccount", true),
            mount("hosts", "/etc/hosts", false),
            mount("termination-log", "/dev/termination-log", false),
        ],
        log_path: "c.log".to_owned(),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                cpu_period: 100_000,
                cpu_shares: 2,
                oom_score_adj: 1000,
                ..Default::default()
            }),
            security_context: Some(context),
        }),
        ..Default::default()
    }
}

fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..Default::default() }
}
