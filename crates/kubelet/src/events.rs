//! Events about pods, their containers and the node, with upstream's reasons.
//!
//! Invariant: recording never waits, and works without an API server (events are then dropped).

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kedge_client::{EventType, Recorder};

use crate::spec;

/// Records events of this node.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
    node: ObjectReference,
}

impl Events {
    pub(crate) fn new(recorder: Recorder, node_name: &str) -> Self {
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node_name.to_owned()),
            // Upstream uses the name here, and `kubectl describe node` looks for it.
            uid: Some(node_name.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder, node }
    }

    pub(crate) fn pod(&self, pod: &Pod, event_type: EventType, reason: &str, message: impl Into<String>) {
        self.record(&spec::pod_reference(pod), event_type, reason, message.into());
    }

    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(&spec::container_reference(pod, container), event_type, reason, message.into());
    }

    pub(crate) fn node(&self, event_type: EventType, reason: &str, message: impl Into<String>) {
        self.record(&self.node, event_type, reason, message.into());
    }

    fn record(&self, about: &ObjectReference, event_type: EventType, reason: &str, message: String) {
        tracing::debug!(
            object = about.name.as_deref().unwrap_or_default(),
            field = about.field_path.as_deref().unwrap_or_default(),
            reason,
            message,
            "event"
        );
        self.recorder.event(about, event_type, reason, message);
    }
}
