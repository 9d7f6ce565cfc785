//! The components of a cluster as processes of their own, until SIGINT or SIGTERM.

use std::path::Path;

use anyhow::Result;
use kedge_supervisor::Flags;
use tokio_util::sync::CancellationToken;

use crate::arguments::{
    ApiServerFlags, ControllerManagerFlags, DnsFlags, NetworkAgentFlags, ProxyFlags, SchedulerFlags, ignored,
};
use crate::commands::up::cancel_on_signals;
use crate::output::{level, start_logging_at};

/// The names under which the binary is a component.
pub(crate) const NAMES: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];

pub(crate) async fn apiserver(flags: ApiServerFlags, shown: Flags) -> Result<()> {
    let shutdown = start("kube-apiserver", flags.v)?;
    Ok(kedge_supervisor::run_apiserver(flags.options(shown)?, shutdown).await?)
}

pub(crate) async fn controller_manager(flags: ControllerManagerFlags, shown: Flags) -> Result<()> {
    let shutdown = start("kube-controller-manager", flags.v)?;
    Ok(kedge_supervisor::run_controller_manager(flags.options(shown), shutdown).await?)
}

pub(crate) async fn scheduler(flags: SchedulerFlags, shown: Flags) -> Result<()> {
    let shutdown = start("kube-scheduler", flags.v)?;
    Ok(kedge_supervisor::run_scheduler(flags.options(shown), shutdown).await?)
}

pub(crate) async fn proxy(flags: ProxyFlags) -> Result<()> {
    let shutdown = start("kube-proxy", flags.v)?;
    Ok(kedge_supervisor::run_proxy(flags.options()?, shutdown).await?)
}

pub(crate) async fn network_agent(flags: NetworkAgentFlags) -> Result<()> {
    let shutdown = start("", flags.v)?;
    Ok(kedge_supervisor::run_network_agent(flags.options()?, shutdown).await?)
}

pub(crate) async fn dns(flags: DnsFlags) -> Result<()> {
    let shutdown = start("", flags.v)?;
    Ok(kedge_supervisor::run_dns(flags.options()?, shutdown).await?)
}

fn start(component: &str, v: u8) -> Result<CancellationToken> {
    start_logging_at(level(v.into()));
    for flag in ignored::split(component, std::env::args_os().collect()).1 {
        tracing::warn!(flag, "a flag has no effect here");
    }
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    Ok(shutdown)
}

/// The name under which this process was started, or the command that it was given, where that is a component's.
pub(crate) fn called() -> Option<&'static str> {
    let mut words = std::env::args_os();
    let own = words.next().unwrap_or_default();
    let file = Path::new(&own).file_name().unwrap_or_default().to_owned();
    let command = words.next().unwrap_or_default();
    NAMES.into_iter().find(|name| file == *name).or_else(|| NAMES.into_iter().find(|name| command == *name))
}
