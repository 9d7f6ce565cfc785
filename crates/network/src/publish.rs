//! Tells others what this node knows of its network: a file for those on the node, an annotation and a condition of the
//! Node for those who ask the API.
//!
//! Invariant: what did not change is not written again; without the API nothing waits, and the file is written all the
//! same.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cni::write_atomically;
use crate::config::Error;
use crate::reach::{REACHABILITY_ANNOTATION, REACHABILITY_FILE, Reachability};

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

/// Writes to this node's Node, in a task of its own, until it is dropped.
pub(crate) struct NodePublisher {
    wanted: watch::Sender<Wanted>,
    _stop: DropGuard,
}

/// What the Node is to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Wanted {
    is_up: bool,
    reachability: Option<Reachability>,
}

impl NodePublisher {
    pub(crate) fn start(client: Client, node_name: &str) -> Self {
        let (sender, wanted) = watch::channel(Wanted::default());
        let stop = CancellationToken::new();
        let writer = Writer { nodes: Api::all(client), name: node_name.to_owned(), written: Wanted::default() };
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = writer.run(wanted) => {}
            }
        });
        Self { wanted: sender, _stop: stop.drop_guard() }
    }

    /// Takes away what keeps pods from a node whose network is not there: others set the same condition as long as
    /// theirs is not (upstream's route controller, Flannel, Calico), and the scheduler looks at it.
    pub(crate) fn network_is_up(&self) {
        self.want(|wanted| wanted.is_up = true);
    }

    /// Puts the annotation on the Node.
    pub(crate) fn annotate(&self, reachability: &Reachability) {
        self.want(|wanted| wanted.reachability = Some(reachability.clone()));
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.clone();
            change(wanted);
            *wanted != before
        });
    }
}

struct Writer {
    nodes: Api<Node>,
    name: String,
    written: Wanted,
}

impl Writer {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            let is_done = self.write(now).await;
            tokio::time::sleep(if is_done { BREATH } else { PAUSE }).await;
            if is_done && wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the Node says all of it.
    async fn write(&mut self, wanted: Wanted) -> bool {
        if wanted.is_up && !self.written.is_up {
            self.written.is_up = self.patch(up(), true).await;
        }
        if wanted.reachability != self.written.reachability
            && let Some(reachability) = &wanted.reachability
            && self.patch(annotation(reachability), false).await
        {
            self.written.reachability.clone_from(&wanted.reachability);
        }
        self.written == wanted
    }

    async fn patch(&self, patch: Value, is_status: bool) -> bool {
        let parameters = PatchParams::default();
        let request = async {
            match is_status {
                true => self.nodes.patch_status(&self.name, &parameters, &Patch::Strategic(patch)).await,
                false => self.nodes.patch(&self.name, &parameters, &Patch::Merge(patch)).await,
            }
        };
        match tokio::time::timeout(PATIENCE, request).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the Node does not take the state of the network; it is tried again");
                false
            }
            Err(_) => false,
        }
    }
}

fn up() -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "KedgeIsUp",
        "message": "kedge's pod network is up on this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    json!({"status": {"conditions": [condition]}})
}

/// The annotation; none where there is nobody else.
fn annotation(reachability: &Reachability) -> Value {
    let value = match reachability.peers.is_empty() {
        true => Value::Null,
        false => serde_json::to_string(reachability).expect("it is JSON").into(),
    };
    json!({"metadata": {"annotations": {REACHABILITY_ANNOTATION: value}}})
}
