//! The TTL controller: says on each node for how long its kubelet may keep Secrets and ConfigMaps without asking again,
//! which is the longer the more nodes there are.
//!
//! Invariant: a number of nodes that goes up and down around a boundary changes nothing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::unless_gone;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Steps of cluster size: fewest and most nodes, and the seconds that go with them. Steps overlap.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let nodes = starter.informer::<Node>();
    let queue = Queue::new();
    let controller = Arc::new(Ttl { context: starter.context.clone(), nodes: nodes.clone(), step: Mutex::new(0) });
    let (all, of_nodes) = (nodes.clone(), controller.clone());
    starter.enqueue(&nodes, &queue, move |change| match change {
        // The size is another for everyone.
        Change::Added(_) | Change::Deleted(_) if of_nodes.changes_step() => {
            all.list().iter().map(|node| object_key(&**node)).collect()
        }
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let workers = starter.context.config.concurrency;
    starter.work(controller, queue, workers);
}

struct Ttl {
    context: Context,
    nodes: Informer<Node>,
    step: Mutex<usize>,
}

impl Ttl {
    /// Whether there are so many nodes now, or so few, that another step holds.
    fn changes_step(&self) -> bool {
        let mut current = self.step.lock();
        let before = *current;
        *current = step(before, self.nodes.len());
        *current != before
    }
}

/// The step for a number of nodes, from the one before.
fn step(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

impl Controller for Ttl {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(node) = self.nodes.get(key) else { return Ok(Next::Done) };
        let seconds = STEPS[*self.step.lock()].2;
        let said = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        if said.and_then(|said| said.parse().ok()) == Some(seconds) {
            return Ok(Next::Done);
        }
        let patch = json!({ "metadata": { "annotations": { ANNOTATION: seconds.to_string() } } });
        let nodes = Api::<Node>::all(self.context.client.clone());
        unless_gone(nodes.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_around_a_boundary_change_nothing() {
        let mut now = 0;
        for (nodes, seconds) in [
            (1, 0),
            (100, 0),
            (101, 15),
            (95, 15),
            (90, 15),
            (89, 0),
            (100, 0),
            (5000, 300),
            (1800, 300),
            (1799, 60),
            (900, 60),
            (0, 0),
        ] {
            now = step(now, nodes);
            assert_eq!(STEPS[now].2, seconds, "{nodes} nodes");
        }
    }
}
