//! The way from the node's agent to the rules: before it starts the containers of a new pod, it asks here, and gets its
//! answer once the rules about that pod are in force. So a pod is isolated before its first packet, and not only from the
//! moment at which its address has been to the API and back.
//!
//! Invariant: whoever asks gets an answer, or notices that nobody is there any more; what was admitted is known here
//! until the API shows the pod's addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kedge_client::object_key;
use kedge_meta::ObjectKey;
use tokio::sync::{mpsc, oneshot};

/// So many pods may wait at a time; more wait to be heard.
const WAITING_MAX: usize = 256;
/// After that time the API shows a pod's addresses, or the pod is gone.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// Asks for new pods; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    requests: mpsc::Sender<Admission>,
}

/// A new pod.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) pod: Pod,
    pub(crate) ips: Vec<IpAddr>,
    /// Told when the rules are in force.
    pub(crate) done: oneshot::Sender<()>,
}

/// The other side of a [`Gate`]; the enforcement of policies has it.
#[derive(Debug)]
pub struct GateKeeper {
    requests: mpsc::Receiver<Admission>,
    /// By name: uid, addresses, and since when.
    admitted: BTreeMap<ObjectKey, (String, Vec<IpAddr>, Instant)>,
}

impl Gate {
    /// A gate and its keeper.
    pub fn new() -> (Self, GateKeeper) {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        (Self { requests }, GateKeeper { requests: receiver, admitted: BTreeMap::new() })
    }

    /// Returns once the rules about a pod that has these addresses are in force; `false` where nobody enforces policies
    /// any more.
    pub async fn admit(&self, pod: Pod, ips: Vec<IpAddr>) -> bool {
        let (done, told) = oneshot::channel();
        self.requests.send(Admission { pod, ips, done }).await.is_ok() && told.await.is_ok()
    }
}

impl GateKeeper {
    /// The next pod; waits for ever where nobody can ask any more.
    pub(crate) async fn next(&mut self) -> Admission {
        match self.requests.recv().await {
            Some(admission) => {
                self.remember(&admission);
                admission
            }
            None => std::future::pending().await,
        }
    }

    fn remember(&mut self, admission: &Admission) {
        let now = Instant::now();
        self.admitted.retain(|_, (_, _, since)| now.duration_since(*since) < REMEMBERED_FOR);
        let uid = admission.pod.metadata.uid.clone().unwrap_or_default();
        self.admitted.insert(object_key(&admission.pod), (uid, admission.ips.clone(), now));
    }

    /// The addresses with which a pod was admitted.
    pub(crate) fn addresses(&self, pod: &Pod) -> &[IpAddr] {
        let admitted = self.admitted.get(&object_key(pod));
        let same = admitted.filter(|(uid, _, _)| Some(uid.as_str()) == pod.metadata.uid.as_deref());
        same.map(|(_, ips, _)| ips.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "web", "uid": uid}})).unwrap()
    }

    #[tokio::test]
    async fn an_answer_comes_when_it_is_given_and_addresses_are_of_one_pod() {
        let (gate, mut keeper) = Gate::new();
        let ip: IpAddr = "10.244.0.2".parse().unwrap();
        let asked = tokio::spawn(async move { gate.admit(pod("1"), vec![ip]).await });
        let admission = keeper.next().await;
        assert_eq!(keeper.addresses(&pod("1")), [ip]);
        assert!(keeper.addresses(&pod("2")).is_empty(), "another pod of the same name");
        assert!(!asked.is_finished());
        admission.done.send(()).unwrap();
        assert!(asked.await.unwrap());
    }

    #[tokio::test]
    async fn nobody_waits_for_nobody() {
        let (gate, keeper) = Gate::new();
        drop(keeper);
        assert!(!gate.admit(pod("1"), Vec::new()).await);
    }
}
