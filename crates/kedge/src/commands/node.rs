//! `kedge node`: a node of a cluster whose control plane is elsewhere, until SIGINT or SIGTERM.

use anyhow::{Context, Result};
use kedge_supervisor::JoinOptions;
use tokio_util::sync::CancellationToken;

use crate::arguments::{NodeFlags, Output};
use crate::commands::up::cancel_on_signals;
use crate::output::{Steps, seconds, start_logging};

pub(crate) async fn run(flags: NodeFlags) -> Result<()> {
    let json = flags.output == Output::Json;
    start_logging(json);
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    let steps = Steps::new(json);
    let data_dir = kedge_lifecycle::Layout::new(flags.data_dir.data_dir.clone());
    let joined = kedge_supervisor::join(options(flags), shutdown.clone(), |progress| steps.show(progress)).await;
    let running = match joined {
        Err(_) if shutdown.is_cancelled() => {
            eprintln!("stopped before the node was ready; `kedge down` removes what was made so far");
            return Ok(());
        }
        other => other?,
    };
    let summary = running.summary().clone();
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    let ready = running.ready();
    tokio::spawn(async move {
        match ready.await {
            Ok(took) if !json => {
                let (name, address) = (&summary.node_name, summary.node_ip);
                println!("node {name} ({address}) of {} is ready after {}", summary.server, seconds(took));
            }
            // The API server may be away for long; the node does its work meanwhile, and says what is wrong.
            Err(error) if !shutdown.is_cancelled() => tracing::warn!(%error, "the node goes on without"),
            _ => {}
        }
    });
    running.finish().await.context("the node did not end cleanly")?;
    if let Err(error) = kedge_lifecycle::mark_ended(&data_dir) {
        tracing::warn!(%error, "that this was an orderly end is not written down");
    }
    Ok(())
}

fn options(flags: NodeFlags) -> JoinOptions {
    JoinOptions {
        data_dir: flags.data_dir.data_dir,
        kubeconfig: flags.kubeconfig,
        agent_kubeconfig: flags.agent_kubeconfig,
        node_ips: flags.node_ip,
        node_name: flags.node_name,
        pod_network_cidr: flags.pod_network_cidr,
        service_cidr: flags.service_cidr,
        node_cidr_masks: flags.node_cidr.masks(),
        service_dns_domain: flags.service_dns_domain,
        network: flags.network.options(),
        container_runtime_endpoint: flags.container_runtime_endpoint,
        kubelet_config: flags.kubelet_config,
    }
}
