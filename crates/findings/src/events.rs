//! Events of the objects concerned: one when a finding comes, one when it goes.
//!
//! Invariant: they are as bounded as all events of a recorder are, and the doctor passes over its own.

use k8s_openapi::api::core::v1::ObjectReference;
use kedge_client::{Client, EventType, Recorder};
use kedge_diagnosis::Subject;
use kedge_doctor::{OWN_EVENTS, object_path};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::changes::whose;

/// A cause was found.
const FOUND: &str = "DoctorFinding";
/// It is gone.
const GONE: &str = "DoctorFindingGone";

/// Tells who is concerned.
pub(crate) struct Events {
    client: Client,
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { recorder: Recorder::start(client.clone(), OWN_EVENTS, "", shutdown), client }
    }

    pub(crate) async fn found(&self, finding: &DynamicObject, report: &Value) {
        self.tell(finding, report, EventType::Warning, FOUND).await;
    }

    pub(crate) async fn gone(&self, finding: &DynamicObject, report: &Value) {
        self.tell(finding, report, EventType::Normal, GONE).await;
    }

    async fn tell(&self, finding: &DynamicObject, report: &Value, event_type: EventType, reason: &str) {
        let text = |field: &str| report[field].as_str().unwrap_or_default();
        let message = format!("{} {}: {}", text("id"), text("title"), text("text"));
        let about = self.concerned(finding, report).await;
        self.recorder.event(&about, event_type, reason, message);
    }

    /// The object that has the trouble; its machine where it is none of the API; the finding where that is none either.
    async fn concerned(&self, finding: &DynamicObject, report: &Value) -> ObjectReference {
        let (subject, node) = whose(report);
        if let Some(reference) = self.reference(&subject).await {
            return reference;
        }
        let node = node.map(|node| Subject { kind: "Node".to_owned(), namespace: String::new(), name: node });
        if let Some(node) = node
            && let Some(reference) = self.reference(&node).await
        {
            return reference;
        }
        let types = finding.types.clone().unwrap_or_default();
        ObjectReference {
            api_version: Some(types.api_version),
            kind: Some(types.kind),
            name: finding.metadata.name.clone(),
            uid: finding.metadata.uid.clone(),
            ..ObjectReference::default()
        }
    }

    /// An object as events name it, if it is there.
    async fn reference(&self, subject: &Subject) -> Option<ObjectReference> {
        let path = object_path(subject)?;
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        let object: PartialObjectMeta<DynamicObject> = self.client.request(request).await.ok()?;
        let types = object.types.unwrap_or_default();
        Some(ObjectReference {
            api_version: Some(types.api_version),
            kind: Some(subject.kind.clone()),
            name: object.metadata.name,
            namespace: object.metadata.namespace,
            uid: object.metadata.uid,
            ..ObjectReference::default()
        })
    }
}

/// The API of findings.
pub(crate) fn findings(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource())
}

/// What findings are in the API.
pub(crate) fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("doctor.kedge.dev", "v1", "Finding"), "findings")
}
