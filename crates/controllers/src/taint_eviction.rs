//! The taint eviction controller: deletes pods that do not tolerate a NoExecute taint of their node, at once or when
//! their toleration ends.
//!
//! Invariant: the time a pod tolerates counts from when its node got the taint, and only from anew where the taints
//! changed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;

use crate::eviction::{Fate, Waiting, Words, is_there};
use crate::pods::{name_of, node_name};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::taints::{Stay, plan_stay, taints_of, tolerations_of};

const WORDS: Words = Words {
    event_reason: "TaintManagerEviction",
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
    goes: |key| format!("Marking for deletion Pod {key}"),
    stays: |key| format!("Cancelling deletion of Pod {key}"),
};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let nodes = starter.informer::<Node>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    let known = nodes.clone();
    starter.enqueue(&pods, &queue, move |change| pod_to_look_at(change, &known).into_iter().collect());
    let known = pods.clone();
    starter.enqueue(&nodes, &queue, move |change| pods_to_look_at(change, &known));
    let workers = starter.context.config.concurrency;
    let controller = Evictions { context: starter.context.clone(), nodes, pods, waiting: Waiting::default() };
    starter.work(Arc::new(controller), queue, workers);
}

fn executing(node: &Node) -> Vec<&Taint> {
    taints_of(node).iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// A pod matters when it comes to a tainted node, or changes there.
fn pod_to_look_at(change: &Change<Pod>, nodes: &Informer<Node>) -> Option<ObjectKey> {
    let pod = change.object();
    if let Change::Updated { old, new } = change
        && node_name(old) == node_name(new)
        && tolerations_of(old) == tolerations_of(new)
    {
        return None;
    }
    let node = nodes.get(&ObjectKey::cluster(node_name(pod)?))?;
    (!executing(&node).is_empty()).then(|| object_key(&**pod))
}

/// All pods of a node whose NoExecute taints changed.
fn pods_to_look_at(change: &Change<Node>, pods: &Informer<Pod>) -> Vec<ObjectKey> {
    let matters = match change {
        Change::Added(node) => !executing(node).is_empty(),
        Change::Updated { old, new } => executing(old) != executing(new),
        Change::Deleted(_) => false,
    };
    if !matters {
        return Vec::new();
    }
    let name = name_of(&change.object().metadata);
    pods.on_node(name).iter().map(|pod| object_key(&**pod)).collect()
}

struct Evictions {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    waiting: Waiting,
}

impl Controller for Evictions {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| is_there(pod)) else {
            self.waiting.forget(key);
            return Ok(Next::Done);
        };
        let node = node_name(&pod).and_then(|node| self.nodes.get(&ObjectKey::cluster(node)));
        let taints = node.as_deref().map(taints_of).unwrap_or_default();
        let fate = plan(&pod, taints, self.waiting.since(key, &pod), self.context.now());
        let count = |late| self.context.metrics.evictions().pod(late);
        self.waiting.execute(&self.context, (key, &pod), fate, &WORDS, count).await
    }
}

fn plan(pod: &Pod, taints: &[Taint], since: Option<Timestamp>, now: Timestamp) -> Fate {
    match plan_stay(taints, tolerations_of(pod)) {
        Stay::Forever => Fate::Stay,
        Stay::No => Fate::Evict(SignedDuration::ZERO),
        Stay::For(time) => {
            let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
            Fate::after(time - now.duration_since(since.unwrap_or(now)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pods::fixtures::pod;
    use crate::taints::fixtures::{exists, taint};

    #[test]
    fn tolerations_end_after_their_time() {
        let check = |seconds: Option<i64>, since: Option<i64>, expected: Fate| {
            let mut pod = pod("a");
            pod.spec.get_or_insert_default().tolerations = Some(vec![exists("k", seconds)]);
            let now = Timestamp::from_second(1_000).unwrap();
            let since = since.map(|since| Timestamp::from_second(since).unwrap());
            assert_eq!(plan(&pod, &[taint("k", "NoExecute")], since, now), expected);
        };
        check(None, None, Fate::Stay);
        check(Some(300), None, Fate::Wait(Duration::from_secs(300)));
        check(Some(300), Some(900), Fate::Wait(Duration::from_secs(200)));
        check(Some(300), Some(690), Fate::Evict(SignedDuration::from_secs(10)));
        check(Some(0), None, Fate::Evict(SignedDuration::ZERO));
        let at_once = plan(&pod("a"), &[taint("k", "NoExecute")], None, Timestamp::UNIX_EPOCH);
        assert_eq!(at_once, Fate::Evict(SignedDuration::ZERO));
        assert_eq!(plan(&pod("a"), &[taint("k", "NoSchedule")], None, Timestamp::UNIX_EPOCH), Fate::Stay);
    }
}
