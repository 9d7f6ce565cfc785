//! `kedge version`.

use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    println!("kedge {} (Kubernetes {})", kedge_supervisor::build_version(), kedge_supervisor::KUBERNETES_VERSION);
    Ok(())
}
