//! The loop of the pod network: wait for the node's pod ranges, make everything, look after it.
//!
//! Invariant: without the API everything stays as it is; a failure is reported and tried again.

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kedge_client::{Backoff, Informer};
use kedge_meta::ComponentState;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Deps, Error, chain};
use crate::publish::NodePublisher;
use crate::setup::{Outcome, Setup, Shortcoming};

/// While pods can't start, kubelet's word for it.
const NOT_READY: &str = "NetworkPluginNotReady";

/// Runs the pod network until `shutdown`. Everything stays when it ends.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    validate(&config, &deps)?;
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    let mut setup: Option<Setup> = None;
    let mut told = String::new();
    let mut agreed = deps.agreement.listen();
    let publisher = deps.client.clone().map(|client| NodePublisher::start(client, &config.node_name));
    loop {
        let delay = match pod_cidrs(&config, deps.nodes.as_ref()) {
            None => {
                let node = &config.node_name;
                deps.status.degraded(NOT_READY, format!("the node {node} has no pod range (spec.podCIDR) yet"));
                None
            }
            Some(ranges) => {
                let start = std::time::Instant::now();
                match round(&mut setup, &config, &deps, &ranges).await {
                    Ok(outcome) => {
                        backoff.reset();
                        told.clear();
                        report(&config, &deps, &outcome);
                        deps.status.heartbeat(Some(start.elapsed()));
                        if let (Some(publisher), Outcome::Ours(_)) = (&publisher, &outcome) {
                            publisher.network_is_up();
                        }
                        Some(config.sync_period)
                    }
                    Err(error) => {
                        let message = chain(&error);
                        if message != told {
                            tracing::warn!(error = message, "the pod network can't be set up");
                        }
                        deps.status.degraded(NOT_READY, message.clone());
                        told = message;
                        Some(backoff.next_delay())
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changed_ranges(&config, deps.nodes.as_ref()) => {}
            // The sender lives in `deps`.
            _ = agreed.changed() => {}
            () = after(delay) => {}
        }
    }
}

fn validate(config: &Config, deps: &Deps) -> Result<(), Error> {
    // The kernel's limit (IFNAMSIZ); the name also stands in a rule, in quotes.
    let name_is_good = |name: &str| {
        (1..=15).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if !name_is_good(&config.bridge) {
        return Err(Error::Config(format!("\"{}\" can't be the name of a bridge", config.bridge)));
    }
    if config.pod_cidrs.is_empty() && deps.nodes.is_none() {
        return Err(Error::Config("there are neither pod ranges nor an API to ask for them".to_owned()));
    }
    Ok(())
}

async fn round(setup: &mut Option<Setup>, config: &Config, deps: &Deps, ranges: &[IpNet]) -> Result<Outcome, Error> {
    let setup = match setup {
        Some(setup) => setup,
        None => setup.insert(Setup::new(config.clone(), deps.agreement.clone())?),
    };
    setup.ensure(ranges).await
}

fn report(config: &Config, deps: &Deps, outcome: &Outcome) {
    match outcome {
        Outcome::Foreign { file, network } => {
            let message = format!(
                "pods join the network {network} of {}: kedge writes no CNI configuration and makes no routes to other nodes",
                config.cni_config_dir.join(file).display()
            );
            deps.status.set(ComponentState::Running, "ForeignCNIConfiguration", message);
        }
        Outcome::Ours(shortcomings) => report_shortcomings(deps, shortcomings),
    }
}

fn report_shortcomings(deps: &Deps, shortcomings: &[Shortcoming]) {
    match shortcomings.first() {
        None => deps.status.running(),
        Some(first) => {
            let messages: Vec<&str> = shortcomings.iter().map(|shortcoming| shortcoming.message.as_str()).collect();
            deps.status.degraded(first.reason, messages.join("; "));
        }
    }
}

/// The configured ranges, or those of the Node.
fn pod_cidrs(config: &Config, nodes: Option<&Informer<Node>>) -> Option<Vec<IpNet>> {
    if !config.pod_cidrs.is_empty() {
        return Some(config.pod_cidrs.clone());
    }
    let node = nodes?.get(&kedge_meta::ObjectKey::cluster(config.node_name.as_str()))?;
    let spec = node.spec.as_ref()?;
    let listed = spec.pod_cidrs.clone().or_else(|| spec.pod_cidr.clone().map(|range| vec![range]));
    let ranges: Vec<IpNet> = listed?.iter().filter_map(|range| range.parse().ok()).collect();
    (!ranges.is_empty()).then_some(ranges)
}

/// Waits until the node's ranges are others than now.
async fn changed_ranges(config: &Config, nodes: Option<&Informer<Node>>) {
    let Some(informer) = nodes.filter(|_| config.pod_cidrs.is_empty()) else { return std::future::pending().await };
    let before = pod_cidrs(config, nodes);
    let mut changes = informer.subscribe();
    while pod_cidrs(config, nodes) == before {
        changes.next().await;
    }
}

async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Informer<Node> {
        let json = serde_json::json!({"metadata": {"name": "n"}, "spec": json});
        Informer::fixed([serde_json::from_value(json).unwrap()])
    }

    #[test]
    fn ranges_come_from_the_configuration_or_the_node() {
        let check = |nodes: Informer<Node>, expected: &[&str]| {
            let config = Config::new("n", Vec::new(), "/x");
            let ranges = pod_cidrs(&config, Some(&nodes)).unwrap_or_default();
            assert_eq!(ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(node(serde_json::json!({})), &[]);
        check(Informer::fixed([]), &[]);
        check(node(serde_json::json!({"podCIDR": "10.244.0.0/24"})), &["10.244.0.0/24"]);
        let both = serde_json::json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"]});
        check(node(both.clone()), &["10.244.0.0/24", "fd00::/64"]);
        let mut config = Config::new("n", Vec::new(), "/x");
        config.pod_cidrs = vec!["10.1.0.0/24".parse().unwrap()];
        assert_eq!(pod_cidrs(&config, Some(&node(both))), Some(config.pod_cidrs.clone()));
    }
}
