//! Taking a cluster down: the process, the pods, and everything that was made on the machine.

use std::path::Path;
use std::time::Duration;

use kedge_lifecycle::{Layout, RunFile, end_process};
use kedge_pki::remove_from_kubeconfig;
use serde::Serialize;

use crate::error::Error;
use crate::node;
use crate::progress::{Progress, step};

const PROCESS_PATIENCE: Duration = Duration::from_secs(30);

/// What was taken down.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DownReport {
    /// Whether there was a cluster.
    pub found: bool,
    /// Whether its process was running.
    pub process_ended: bool,
    /// How many pods were stopped.
    pub pods: usize,
    /// How many mounts were removed.
    pub mounts: usize,
    /// Whether the data directory is gone.
    pub data_deleted: bool,
}

impl DownReport {
    /// Whether there was nothing to take down.
    pub fn found_nothing(&self) -> bool {
        !self.found && !self.data_deleted
    }
}

/// Takes the cluster of a data directory down. Can be repeated after a failure.
pub async fn down(data_dir: &Path, delete_data: bool, report: impl Fn(Progress) + Sync) -> Result<DownReport, Error> {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let layout = Layout::new(&data_dir);
    let mut done = DownReport::default();
    if let Some(run) = RunFile::read(&layout.run_file())? {
        done.found = true;
        done.process_ended = step(&report, "end the process", end_process(&run, PROCESS_PATIENCE)).await?;
        if !run.control_plane_only {
            node::take_down(&layout, &run, &mut done, &report).await?;
        }
        for kubeconfig in &run.kubeconfigs {
            remove_from_kubeconfig(kubeconfig, &run.context)?;
        }
        let _ = std::fs::remove_file(layout.run_file());
    }
    if delete_data && layout.root().exists() {
        step(&report, "delete the data", async { delete(&layout) }).await?;
        done.data_deleted = true;
    }
    Ok(done)
}

/// Deletes what Kedge keeps in the data directory; the directory itself only if nothing else is in it.
fn delete(layout: &Layout) -> Result<(), Error> {
    let own = [
        layout.store(),
        layout.pki(),
        layout.kubeconfig(),
        layout.kubelet_kubeconfig(),
        layout.agent_kubeconfig(),
        layout.components(),
        layout.containerd(),
        layout.kubelet(),
        layout.images(),
        layout.local_path(),
        layout.root().join("manifests"),
        layout.root().join("logs"),
        layout.root().join("cni"),
        layout.root().join("network"),
        layout.root().join("proxy"),
        layout.run_file(),
        layout.ended_file(),
        layout.lock(),
    ];
    for path in own {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Remove { what: "the data directory", source: Box::new(error) });
            }
            _ => {}
        }
    }
    // A directory that holds other people's files stays.
    let _ = std::fs::remove_dir(layout.root());
    Ok(())
}
