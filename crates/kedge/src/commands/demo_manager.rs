//! `kedge demo-manager`: what runs in the pods of drills about controllers that lose their leases.

use anyhow::Result;
use kedge_demo_manager::{ElectionOptions, ManagerOptions};
use tokio_util::sync::CancellationToken;

use crate::arguments::DemoManagerFlags;
use crate::commands::up::cancel_on_signals;

/// Where a pod finds the name of its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

pub(crate) async fn run(flags: DemoManagerFlags) -> Result<()> {
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    let client = kedge_client::client_in_cluster()?;
    Ok(kedge_demo_manager::run(options(flags), client, shutdown).await?)
}

fn options(flags: DemoManagerFlags) -> ManagerOptions {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let now = jiff::Timestamp::now().as_nanosecond();
    let own = || std::fs::read_to_string(NAMESPACE).map(|name| name.trim().to_owned());
    let election = ElectionOptions {
        namespace: flags.leader_elect_resource_namespace.or_else(|| own().ok()).unwrap_or_else(|| "default".to_owned()),
        name: flags.leader_elect_resource_name,
        // A container that is restarted has the same host name, and is another competitor.
        identity: format!("{host}_{now:x}"),
        lease_duration: flags.leader_elect_lease_duration,
        renew_deadline: flags.leader_elect_renew_deadline,
        retry_period: flags.leader_elect_retry_period,
    };
    ManagerOptions { election: flags.leader_elect.then_some(election), webhook_port: flags.webhook_port }
}
