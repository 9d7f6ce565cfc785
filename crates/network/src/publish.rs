//! Tells others what this node knows of its network: a file for those on the node, an annotation and a condition of the
//! Node for those who ask the API.
//!
//! Invariant: what did not change is not written again; without the API nothing waits, and the file is written all the
//! same.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cni::write_atomically;
use crate::config::Error;
use crate::reach::{REACHABILITY_ANNOTATION, Reachability};

/// The file in the state directory.
pub(crate) const REACHABILITY_FILE: &str = "reachability.json";

const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure the API is asked again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long after a change the next one is told: a peer may find a new error with every attempt.
const BREATH: Duration = Duration::from_secs(2);

/// Writes the file, if it says something else.
pub(crate) fn write_reachability(state_dir: &Path, reachability: &Reachability) -> Result<(), Error> {
    let file = state_dir.join(REACHABILITY_FILE);
    let mut text = serde_json::to_string_pretty(reachability).expect("it is JSON");
    text.push('\n');
    write_atomically(&file, &text).map_err(|source| Error::File { file, action: "written", source })
}

/// Writes to this node's Node.
pub(crate) struct NodePublisher {
    nodes: Api<Node>,
    name: String,
    is_up: bool,
    annotated: Option<Reachability>,
    paused_until: Option<Instant>,
}

impl NodePublisher {
    pub(crate) fn new(client: Client, node_name: &str) -> Self {
        Self { nodes: Api::all(client), name: node_name.to_owned(), is_up: false, annotated: None, paused_until: None }
    }

    /// Takes away what keeps pods from a node whose network is not there: others set the same condition as long as
    /// theirs is not (upstream's route controller, Flannel, Calico), and the scheduler looks at it.
    pub(crate) async fn network_is_up(&mut self) {
        if self.is_up || self.pauses() {
            return;
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "KedgeIsUp",
            "message": "kedge's pod network is up on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        self.is_up = self.patch(json!({"status": {"conditions": [condition]}}), true).await;
    }

    /// Puts the annotation on the Node, if it says something else.
    pub(crate) async fn annotate(&mut self, reachability: &Reachability) {
        if self.annotated.as_ref() == Some(reachability) || self.pauses() {
            return;
        }
        let value = match reachability.peers.is_empty() {
            true => Value::Null,
            false => serde_json::to_string(reachability).expect("it is JSON").into(),
        };
        let patch = json!({"metadata": {"annotations": {REACHABILITY_ANNOTATION: value}}});
        if self.patch(patch, false).await {
            self.annotated = Some(reachability.clone());
        }
    }

    fn pauses(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    async fn patch(&mut self, patch: Value, is_status: bool) -> bool {
        let parameters = PatchParams::default();
        let request = async {
            match is_status {
                true => self.nodes.patch_status(&self.name, &parameters, &Patch::Strategic(patch)).await,
                false => self.nodes.patch(&self.name, &parameters, &Patch::Merge(patch)).await,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, request).await;
        let is_done = matches!(answer, Ok(Ok(_)));
        if let Ok(Err(error)) = answer {
            tracing::debug!(%error, "the Node does not take the state of the network; it is tried again");
        }
        self.paused_until = Some(Instant::now() + if is_done { BREATH } else { PAUSE });
        is_done
    }
}
