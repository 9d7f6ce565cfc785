//! `kedge demo-app`: what runs in the demo's containers.

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use crate::arguments::DemoAppFlags;
use crate::commands::up::cancel_on_signals;
use crate::output;

pub(crate) async fn run(flags: DemoAppFlags) -> Result<()> {
    output::start_container_log();
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    let listen = flags.listen;
    kedge_demo_app::run(listen, flags.needs, shutdown).await.with_context(|| format!("cannot serve on {listen}"))
}
