//! The doctor that looks after a cluster: `kedge doctor watch-cluster`, what it needs there, and the same in `kedge up`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kedge_findings::{Access, WatchOptions};
use kedge_lifecycle::{DOCTOR_NAMESPACE, DOCTOR_USER, SystemImages, apply_objects, doctor_objects, doctor_rights};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::arguments::{DoctorManifestsFlags, DoctorWatchFlags};
use crate::commands::up::cancel_on_signals;
use crate::output::start_logging_at;

/// Until SIGINT or SIGTERM.
pub(super) async fn watch(flags: &DoctorWatchFlags, kubeconfig: Option<&PathBuf>) -> Result<()> {
    start_logging_at("info");
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    let access = match kubeconfig {
        Some(path) => Access::Kubeconfig { path: path.clone(), user: None },
        None => Access::Pod,
    };
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let options = WatchOptions {
        access,
        identity: (!flags.no_leader_elect).then(|| format!("{host}_{}", std::process::id())),
        namespace: flags.lease_namespace.clone(),
        metrics: flags.metrics_bind_address,
    };
    Ok(kedge_findings::run_alone(options, shutdown).await?)
}

/// As YAML, one document for each object.
pub(super) fn manifests(flags: &DoctorManifestsFlags) -> Result<String> {
    let objects = match flags.rights_only {
        true => doctor_rights(),
        false => {
            let image = flags.image.clone().unwrap_or_else(|| SystemImages::of_machine(None).kedge);
            doctor_objects(&image, flags.replicas)
        }
    };
    let document = |object: &Value| serde_yaml::to_string(object).map(|text| format!("---\n{text}"));
    Ok(objects.iter().map(document).collect::<Result<_, _>>()?)
}

/// Within a process that has a cluster: with the rights of the doctor's own account, and no more.
pub(crate) async fn spawn(
    kubeconfig: &Path,
    node: &str,
    metrics: Option<SocketAddr>,
    shutdown: CancellationToken,
) -> Result<()> {
    let client = kedge_client::client_from_kubeconfig(kubeconfig).await?;
    apply_objects(&client, &doctor_rights()).await.context("the doctor cannot be given its rights")?;
    let options = WatchOptions {
        access: Access::Kubeconfig { path: kubeconfig.to_owned(), user: Some(DOCTOR_USER.to_owned()) },
        // The same after a crash: it goes on at once.
        identity: Some(format!("{node}_kedge")),
        namespace: DOCTOR_NAMESPACE.to_owned(),
        metrics,
    };
    kedge_findings::spawn(options, shutdown)?;
    Ok(())
}
