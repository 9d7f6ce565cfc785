//! What the runtime, runc and the network plugins need for a pod when nobody else is involved.
//!
//! Invariant: the same image, network and number of processes as the pods that the node is measured with.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kedge_cri::{PrivateContainerd, Runtime, v1};

/// The client of the containerd of a data directory, and its endpoint.
pub(super) async fn of(data_dir: &Path) -> Result<Runtime> {
    let found = PrivateContainerd::find(&data_dir.join("containerd")).await;
    let endpoint = found.context("no containerd runs for the data directory")?.endpoint();
    Ok(Runtime::connect(&endpoint).await?)
}

/// Makes sandboxes with a container one after the other; how long each took, in microseconds. Removes them.
pub(super) async fn bare_pods(runtime: &Runtime, image: &str, logs: &Path, count: usize) -> Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut sandboxes = Vec::new();
    for index in 0..count {
        let sandbox = sandbox(&format!("bare-{index}"), logs);
        std::fs::create_dir_all(&sandbox.log_directory)?;
        let began = Instant::now();
        let id = runtime.run_pod_sandbox(sandbox.clone(), "").await?;
        let container = runtime.create_container(&id, container(image), sandbox).await?;
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

fn sandbox(name: &str, logs: &Path) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: name.to_owned(),
        uid: name.to_owned(),
        namespace: "bench".to_owned(),
        attempt: 0,
    };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: name.to_owned(),
        log_directory: logs.join(name).display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

fn container(image: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
        log_path: "c.log".to_owned(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    }
}
