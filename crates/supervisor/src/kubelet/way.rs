//! The kubelet's way to the API servers: the node's balancer, which lives in the kubelet's process and serves every program
//! of the node.

use kedge_balancer::{Balancer, Config, MEMORY_FILE};
use kedge_client::{Client, RequestMetrics};
use tokio_util::sync::CancellationToken;

use super::{KubeletOptions, chain};
use crate::error::Error;

/// Starts the balancer, where the node has one.
pub(super) async fn start_balancer(
    options: &KubeletOptions,
    kubelet: &kedge_kubelet::Config,
    shutdown: &CancellationToken,
) -> Result<Option<Balancer>, Error> {
    let Some(listen) = options.api_balancer else { return Ok(None) };
    let kubeconfigs = std::iter::once(&options.kubeconfig).chain(&options.bootstrap_kubeconfig);
    let config = Config {
        listen,
        seeds: options.api_balancer_seeds.clone(),
        memory: options.root_dir.join(MEMORY_FILE),
        own: kubelet.node_ips(),
        kubeconfigs: kubeconfigs.cloned().collect(),
    };
    let started = Balancer::start(config, shutdown.clone()).await;
    started.map(Some).map_err(|error| Error::Component { component: "kubelet", why: chain(&error) })
}

/// Has the balancer follow the cluster's list of API servers, and the kubelet's metrics say what it does.
pub(super) fn follow(balancer: Balancer, client: &Client, requests: &RequestMetrics, shutdown: &CancellationToken) {
    let told = balancer.clone();
    requests.carried_by(move || told.metrics());
    let (client, shutdown) = (client.clone(), shutdown.clone());
    tokio::spawn(async move { balancer.follow(client, shutdown).await });
}
