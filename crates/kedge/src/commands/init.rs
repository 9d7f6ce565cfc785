//! `kedge init`, `kedge init phase` and the process that keeps the kubelet running.

use anyhow::Result;
use kedge_supervisor::{HostLayout, Init, InitSettings};
use tokio_util::sync::CancellationToken;

use crate::arguments::{InitCommand, InitFlags};
use crate::commands::up::cancel_on_signals;
use crate::output::{start_logging, start_logging_at};

pub(crate) async fn run(flags: InitFlags) -> Result<()> {
    start_logging(false);
    let (options, phase) = match flags.command {
        None => (flags.flags, None),
        Some(InitCommand::Phase { phase, part, flags }) => (*flags, Some((phase, part))),
    };
    let settings = InitSettings::new(options.asked())?;
    let init = Init::new(settings, &|line| println!("{line}"))?;
    let done = match phase {
        None => init.run().await,
        Some((phase, part)) => init.phase(&phase, part.as_deref()).await,
    };
    done.map_err(|error| on_one_line(&error))
}

/// On one line, as kubeadm writes it: people and their scripts know it so.
pub(crate) fn on_one_line(error: &dyn std::error::Error) -> anyhow::Error {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    anyhow::anyhow!(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// Keeps the kubelet running until SIGINT or SIGTERM.
pub(crate) async fn keep_kubelet() -> Result<()> {
    start_logging_at("info");
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    Ok(kedge_supervisor::keep_kubelet(&HostLayout::default(), shutdown).await?)
}
