//! The leases of all simulated nodes, by one wheel: a slot for each tenth of a second of the period, and in it the nodes
//! whose turn it is then.
//!
//! Invariant: a node is in one slot at most, and neighbours on the wheel have about as many.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kedge_meta::format_micro_time;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::requests::{already_exists, create_lease, patch_lease};

/// As the kubelet has it: renewed every ten seconds, void after forty.
const DURATION_SECONDS: u32 = 40;
const SLOTS: usize = 100;
/// The time of a slot.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Who renews when.
#[derive(Debug)]
pub(crate) struct Wheel {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Vec<String>>,
    slots_by_node: HashMap<String, usize>,
    /// The slot that gets the next node.
    filling: usize,
    /// The slot whose turn is next.
    turning: usize,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        let state = State { slots: vec![Vec::new(); SLOTS], slots_by_node: HashMap::new(), filling: 0, turning: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Puts a node on the wheel; whether it was not on it.
    pub(crate) fn add(&self, node: &str) -> bool {
        let mut state = self.state.lock();
        if state.slots_by_node.contains_key(node) {
            return false;
        }
        let slot = state.filling;
        state.filling = (slot + 1) % SLOTS;
        state.slots[slot].push(node.to_owned());
        state.slots_by_node.insert(node.to_owned(), slot);
        true
    }

    /// Takes a node off the wheel.
    pub(crate) fn remove(&self, node: &str) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots_by_node.remove(node) {
            state.slots[slot].retain(|known| known != node);
        }
    }

    /// Turns the wheel: the nodes whose turn it is.
    pub(crate) fn turn(&self) -> Vec<String> {
        let mut state = self.state.lock();
        let slot = state.turning;
        state.turning = (slot + 1) % SLOTS;
        state.slots[slot].clone()
    }
}

/// Renews a node's lease, or makes it.
pub(crate) async fn renew(client: &Client, node: &Node, now: Timestamp) -> Result<(), kube::Error> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    match patch_lease(client, name, json!({ "spec": spec(name, now) })).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => return result.map(drop),
    }
    match create_lease(client, &lease(node, now)).await {
        Err(error) if !already_exists(&error) => Err(error),
        _ => Ok(()),
    }
}

fn spec(name: &str, now: Timestamp) -> Value {
    json!({"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": format_micro_time(now)})
}

/// The lease goes with its node.
fn lease(node: &Node, now: Timestamp) -> Value {
    let (name, uid) = (node.metadata.name.as_deref().unwrap_or_default(), node.metadata.uid.as_deref());
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid.unwrap_or_default()}],
        },
        "spec": spec(name, now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_in_each_round() {
        let wheel = Wheel::new();
        for number in 0..250 {
            assert!(wheel.add(&format!("n{number}")));
        }
        assert!(!wheel.add("n7"));
        wheel.remove("n8");
        wheel.remove("unknown");
        let turns: Vec<Vec<String>> = (0..SLOTS).map(|_| wheel.turn()).collect();
        let mut all = turns.concat();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), turns.concat().len()), (249, 249));
        assert!(turns.iter().all(|slot| matches!(slot.len(), 2 | 3)));
        assert_eq!(wheel.turn(), turns[0], "and again in the next one");
    }
}
