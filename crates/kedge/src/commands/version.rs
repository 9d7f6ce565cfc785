//! `kedge version`.

use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    println!("kedge {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), kedge_supervisor::KUBERNETES_VERSION);
    Ok(())
}
