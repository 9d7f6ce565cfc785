//! `kedge init`, `kedge init phase` and the process that keeps the kubelet running.

use anyhow::Result;
use kedge_supervisor::{HostLayout, Init, InitSettings};
use tokio_util::sync::CancellationToken;

use crate::arguments::{InitCommand, InitFlags, KeeperAction};
use crate::commands::up::cancel_on_signals;
use crate::output::{start_logging, start_logging_at};

/// From here on, everything is said: upstream's level.
const MUCH: u8 = 5;
/// By which an init script says that a service does not run.
const NOT_RUNNING: i32 = 3;

pub(crate) async fn run(flags: InitFlags) -> Result<()> {
    let (options, phase) = match flags.command {
        None => (flags.flags, None),
        Some(InitCommand::Phase { phase, part, flags }) => (*flags, Some((phase, part))),
    };
    let v = options.v;
    start_logging_with(v);
    let settings = InitSettings::new(options.asked())?;
    let init = Init::new(settings, &|line| println!("{line}"))?;
    let done = match phase {
        None => init.run().await,
        Some((phase, part)) => init.phase(&phase, part.as_deref()).await,
    };
    done.map_err(|error| failed_phase(&error, v))
}

/// On one line, as kubeadm writes it: people and their scripts know it so.
pub(crate) fn on_one_line(error: &dyn std::error::Error) -> anyhow::Error {
    anyhow::anyhow!(line(error))
}

/// The same for a phase, with how to see more; each cause on a line of its own where much is asked for.
pub(crate) fn failed_phase(error: &dyn std::error::Error, v: u8) -> anyhow::Error {
    let text = line(error);
    if v < MUCH {
        return anyhow::anyhow!("{text}\nTo see the stack trace of this error execute with --v=5 or higher");
    }
    let stack: Vec<String> = causes(error).map(|cause| format!("{cause:?}")).collect();
    anyhow::anyhow!("{text}\n{error:?}\n{}", stack.join("\n"))
}

fn line(error: &dyn std::error::Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = &dyn std::error::Error> {
    std::iter::successors(error.source(), |cause| cause.source())
}

/// Warnings, or everything.
pub(crate) fn start_logging_with(v: u8) {
    if v < MUCH { start_logging(false) } else { start_logging_at("debug") }
}

/// Keeps the kubelet running until SIGINT or SIGTERM.
pub(crate) async fn keep_kubelet() -> Result<()> {
    start_logging_at("info");
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    Ok(kedge_supervisor::keep_kubelet(&HostLayout::default(), shutdown).await?)
}

/// Starts or ends who keeps the kubelet running, or tells of it, as init scripts ask.
pub(crate) async fn control_keeper(action: KeeperAction) -> Result<()> {
    let layout = HostLayout::default();
    match action {
        KeeperAction::Start => Ok(kedge_lifecycle::ensure_keeper(&layout).await?),
        KeeperAction::Stop => Ok(kedge_lifecycle::stop_kubelet(&layout).await?),
        KeeperAction::Status => match kedge_lifecycle::keeper_process(&layout) {
            Some(process) => {
                println!("kubelet is kept running by process {process}");
                Ok(())
            }
            None => {
                println!("kubelet is not running");
                std::process::exit(NOT_RUNNING)
            }
        },
    }
}
