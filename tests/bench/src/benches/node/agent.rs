//! The node agent as a process of its own, with a hundred pods: memory, and processor time at rest.
//!
//! It goes on with the containerd and the network of the node that was measured before. Invariant: the control plane is
//! another process, so that the figures are the agent's alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kedge_pki::{CertificateAuthority, KubeconfigEntry, LeafRequest, merge_kubeconfig};

use super::{ADDRESS, IDLE, MANY, Place, SETTLE_MANY, at_rest, pods, seconds};
use crate::benches::memory;
use crate::figures::Report;
use crate::server::{Memory, Process};
use crate::target::Target;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(place: &Place, binary: &Path, dir: &Path, image: &str, report: &mut Report) -> Result<()> {
    let (own, data) = (dir.join("agent"), dir.join("agent/data"));
    fs::create_dir_all(own.join("control-plane"))?;
    let mut command = place.command(binary);
    command.args(["up", "--control-plane-only", "--node-ip", ADDRESS, "--node-name", "bench", "--output", "json"]);
    command.arg("--data-dir").arg(&data).arg("--kubeconfig").arg(own.join("config"));
    let mut control_plane = Process::start(command, &own.join("control-plane"))?;
    wait_for(&mut control_plane, |process| process.output().contains('\n'))?;
    let mut kubelet = start_kubelet(place, binary, dir, &own, &data).await?;
    wait_for_room(dir).await?;
    let target = Target::from_kubeconfig(&data.join("admin.conf"), None)?;
    let image = image.to_owned();
    let took = place.inside(move || async move { pods::all_at_once(&target, &image, MANY).await })?;
    report.add(seconds(&format!("kubelet alone: {MANY} pods from creation to all Running"), took, ""));
    tokio::time::sleep(SETTLE_MANY).await;
    let used = Memory::of(kubelet.id())?;
    report.add(memory::figure("node", format!("kubelet process, {MANY} pods, idle"), used, "goal < 40 MB"));
    report.add(at_rest(&format!("kubelet process, {MANY} pods"), kubelet.id(), IDLE).await);
    kubelet.stop()?;
    control_plane.stop()?;
    // `kedge down` removes only what its own kubelet made.
    super::runtime::remove_all(&super::runtime::of(&dir.join("data")).await?).await
}

async fn start_kubelet(place: &Place, binary: &Path, dir: &Path, own: &Path, data: &Path) -> Result<Process> {
    let pki = data.join("pki");
    let authority = CertificateAuthority::ensure(&pki, "ca", "kubernetes")?;
    let entry = KubeconfigEntry {
        name: "node".to_owned(),
        server: format!("https://{ADDRESS}:6443"),
        authority_pem: authority.certificate_pem().to_owned(),
        identity: authority.issue(&LeafRequest::client("system:node:bench", &["system:nodes"]))?,
    };
    let kubeconfig = own.join("kubelet.conf");
    merge_kubeconfig(&kubeconfig, &entry)?;
    let config = own.join("config.yaml");
    let logs = own.join("logs/pods");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodLogsDir: {}\nmaxPods: 110\n",
        logs.display()
    );
    fs::write(&config, text)?;
    let endpoint = super::runtime::of(&dir.join("data")).await?.endpoint().to_owned();
    fs::create_dir_all(own.join("kubelet"))?;
    let mut command = place.command(binary);
    command.arg("kubelet").arg("--kubeconfig").arg(&kubeconfig).arg("--config").arg(&config);
    command.arg("--container-runtime-endpoint").arg(endpoint).arg("--root-dir").arg(own.join("root"));
    command.arg("--cert-dir").arg(own.join("certificates")).args(["--node-ip", ADDRESS]);
    command.args(["--hostname-override", "bench"]);
    Process::start(command, &own.join("kubelet"))
}

/// Waits until the pods of the node that was measured before are gone: this cluster does not know them.
async fn wait_for_room(dir: &Path) -> Result<()> {
    let runtime = super::runtime::of(&dir.join("data")).await?;
    let began = Instant::now();
    loop {
        let left = runtime.list_pod_sandboxes(None).await?.len();
        if left == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < 3 * PATIENCE, "{left} pods of another cluster are still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn wait_for(process: &mut Process, ready: impl Fn(&Process) -> bool) -> Result<()> {
    let began = Instant::now();
    while !ready(process) {
        process.check_runs()?;
        ensure!(began.elapsed() < PATIENCE, "it was not ready after {PATIENCE:?}\n{}", process.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
