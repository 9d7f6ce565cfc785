//! The nodes and pods that the simulation makes itself, as far as they are not there yet.
//!
//! Invariant: the same configuration makes the same objects, whatever was there before; nothing is ever deleted.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kedge_client::{Backoff, Client, Informer};
use kedge_meta::{ObjectKey, Quantity};
use kube::Resource;
use serde_json::{Value, json};

use crate::addresses::pod_range;
use crate::config::Config;
use crate::node::own_node;
use crate::requests::{already_exists, create};

/// The namespace of the pods.
pub const FILLER_NAMESPACE: &str = "simulated";
/// The names of nodes are this and a number.
pub const NODE_PREFIX: &str = "sim-";

/// How many objects are made at a time.
const AT_ONCE: usize = 64;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Makes what is missing; returns when all of it is there.
pub(crate) async fn fill(client: &Client, config: &Config, nodes: &Informer<Node>, pods: &Informer<Pod>) {
    let known = |number: &u32| nodes.contains(&ObjectKey::cluster(node_name(*number)));
    let made = (0..config.nodes).filter(|number| !known(number)).map(|number| {
        let name = node_name(number);
        (Node::url_path(&(), None), own_node(config, number, &name, &pod_range(number)))
    });
    create_all(client, made).await;
    if config.pods == 0 {
        return;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FILLER_NAMESPACE}});
    create_all(client, std::iter::once((Namespace::url_path(&(), None), namespace))).await;
    let key = |number| ObjectKey::new(FILLER_NAMESPACE, pod_name(number));
    let path = Pod::url_path(&(), Some(FILLER_NAMESPACE));
    let missing = (0..config.pods).filter(|number| !pods.contains(&key(*number)));
    create_all(client, missing.map(|number| (path.clone(), own_pod(config, number)))).await;
}

fn node_name(number: u32) -> String {
    format!("{NODE_PREFIX}{number:05}")
}

fn pod_name(number: u32) -> String {
    format!("filler-{number:07}")
}

/// Makes objects, each until it is there.
async fn create_all(client: &Client, objects: impl Iterator<Item = (String, Value)>) {
    let work = |(path, object): (String, Value)| async move {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            match create(client, &path, &object).await {
                Ok(_) => return,
                Err(error) if already_exists(&error) => return,
                // A namespace is not ready at once, and a server may be away: both pass.
                Err(error) => tracing::debug!(path, %error, "an object of the simulation could not be made yet"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    };
    futures::stream::iter(objects).for_each_concurrent(AT_ONCE, work).await;
}

/// A pod of the simulation's own, on the node whose turn it is; its requests are a part of its share of the node.
fn own_pod(config: &Config, number: u32) -> Value {
    let milli_share = |amount: &str| {
        let whole: Quantity = amount.parse().unwrap_or(Quantity::from_units(0));
        whole.millis() / i64::from(config.pods_per_node)
    };
    let random = random(config.seed, number);
    let quarters = |random: u64| i64::try_from(random % 4 + 1).unwrap_or(1);
    let cpu = milli_share(&config.cpu) * quarters(random) / 4;
    let memory = milli_share(&config.memory) / 1000 * quarters(random >> 32) / 4;
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name(number), "labels": {"app.kubernetes.io/name": "filler"}},
        "spec": {
            "nodeName": node_name(number % config.nodes.max(1)),
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "registry.k8s.io/pause:3.10",
                "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": memory.to_string()}},
            }],
        },
    })
}

/// A number that follows from seed and place: one step of SplitMix64 (Steele, Lea, Flood 2014).
fn random(seed: u64, number: u32) -> u64 {
    let state = seed.wrapping_add((u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(seed: u64, number: u32) -> Value {
        let config = Config { nodes: 3, pods: 9, seed, ..Config::default() };
        own_pod(&config, number)["spec"]["containers"][0]["resources"]["requests"].clone()
    }

    #[test]
    fn the_same_seed_makes_the_same_pods() {
        let all = |seed| (0..9).map(|number| requests(seed, number)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn a_full_node_has_room_for_its_pods() {
        let config = Config { nodes: 1, pods: 110, cpu: "2".to_owned(), ..Config::default() };
        let cpu = |number| {
            let pod = own_pod(&config, number);
            let text = pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap().to_owned();
            text.parse::<Quantity>().unwrap().millis()
        };
        let all: i64 = (0..110).map(cpu).sum();
        assert!(all > 500 && all <= 2000, "{all}m");
    }

    #[test]
    fn pods_go_round_the_nodes() {
        let config = Config { nodes: 3, pods: 9, ..Config::default() };
        assert_eq!(own_pod(&config, 4)["spec"]["nodeName"], "sim-00001");
    }
}
