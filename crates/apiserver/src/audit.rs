//! What of a request goes into the audit log, and when.
//!
//! Which requests are recorded and where events go is `kedge_audit`'s. Invariant: a request whose first event was recorded
//! has a last one, also where its client has gone or its handler panicked.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use kedge_audit::{Audit, Decision, Event, Level, ObjectReference, ResponseStatus, Stage};
use kedge_kinds::Deprecation;
use kedge_meta::{ApiStatus, Clock, UserInfo};
use parking_lot::Mutex;
use serde_json::json;

use crate::access;
use crate::admission::Notes;
use crate::body::Body;
use crate::call::Call;
use crate::core::{Core, new_uid};
use crate::handle::Peer;
use crate::target::Target;

mod objects;
mod source;

/// The header by which a request is known in all logs.
const AUDIT_ID: &str = "audit-id";

/// What is being recorded of a request. The last event is recorded when the last of those who hold it lets go.
pub(crate) struct Recorder {
    audit: Arc<Audit>,
    clock: Arc<dyn Clock>,
    decision: Decision,
    notes: Arc<Notes>,
    state: Mutex<State>,
}

struct State {
    event: Event,
    /// The last event has been recorded.
    is_complete: bool,
}

/// How a request was answered, before it is put into a form for its client.
pub(crate) struct Outcome<'a> {
    pub(crate) error: Option<&'a ApiStatus>,
    pub(crate) has_panicked: bool,
    pub(crate) is_long_running: bool,
    pub(crate) deprecation: Option<&'a Deprecation>,
}

/// The id of a request: its client's, or a new one.
pub(crate) fn id(headers: &HeaderMap) -> HeaderValue {
    let own = headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
    own.unwrap_or_else(|| HeaderValue::try_from(new_uid()).expect("digits and dashes can stand in a header"))
}

/// Tells a client the id of its request, where nobody has.
pub(crate) fn tell(response: &mut Response<Body>, id: HeaderValue) {
    response.headers_mut().entry(AUDIT_ID).or_insert(id);
}

/// Records that a request has come, where the policy wants to know; an error where it has to be recorded and can't be.
pub(crate) async fn begin(core: &Core, call: &mut Call, peer: &Peer) -> Result<(), ApiStatus> {
    let Some(recorder) = core.audit.as_ref().and_then(|audit| Recorder::new(core, audit, call, peer)) else {
        return Ok(());
    };
    call.notes.collect(recorder.decision.level);
    if recorder.record(Stage::RequestReceived).await {
        call.recorder = Some(Arc::new(recorder));
        return Ok(());
    }
    // It is not let in, so there is nothing that could end.
    recorder.state.lock().is_complete = true;
    Err(ApiStatus::internal("failed to store audit event"))
}

/// Records that somebody was not let in, as upstream does: once, and as what has begun.
pub(crate) async fn refused(core: &Core, call: &Call, peer: &Peer, status: &ApiStatus) {
    let Some(recorder) = core.audit.as_ref().and_then(|audit| Recorder::new(core, audit, call, peer)) else { return };
    {
        let mut state = recorder.state.lock();
        state.event.response_status = Some(ResponseStatus::of_status(&status.to_json(), status.code));
        state.is_complete = true;
    }
    recorder.record(Stage::ResponseStarted).await;
}

impl Recorder {
    fn new(core: &Core, audit: &Arc<Audit>, call: &Call, peer: &Peer) -> Option<Self> {
        let decision = audit.decide(&access::attributes(call));
        if decision.level == Level::None {
            return None;
        }
        let request_uri = match call.raw_query.is_empty() {
            true => call.path.clone(),
            false => format!("{}?{}", call.path, call.raw_query),
        };
        let event = Event {
            level: decision.level,
            audit_id: String::from_utf8_lossy(call.audit_id.as_bytes()).into_owned(),
            stage: Stage::RequestReceived,
            request_uri,
            verb: call.verb.to_owned(),
            user: call.user.clone(),
            impersonated_user: None,
            source_ips: source::addresses(&call.headers, peer.address()),
            user_agent: kedge_audit::user_agent(call.header("user-agent")),
            object_ref: reference(call),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: call.now,
            stage_timestamp: call.now,
            annotations: BTreeMap::new(),
        };
        let state = Mutex::new(State { event, is_complete: false });
        let (clock, notes) = (Arc::clone(&core.clock), Arc::clone(&call.notes));
        Some(Self { audit: Arc::clone(audit), clock, decision, notes, state })
    }

    /// On whose behalf a request goes on.
    pub(crate) fn impersonated(&self, user: &UserInfo) {
        self.state.lock().event.impersonated_user = Some(user.clone());
    }

    /// What was sent.
    pub(crate) fn sent(&self, verb: &str, headers: &HeaderMap, body: &Bytes) {
        let is_object = matches!(verb, "create" | "update");
        if body.is_empty() || (self.decision.level < Level::Request && !is_object) {
            return;
        }
        let format = objects::Format::of(headers);
        let mut state = self.state.lock();
        if let (true, Some(reference)) = (is_object, &mut state.event.object_ref) {
            objects::complete(reference, format, body);
        }
        if self.decision.level >= Level::Request {
            let strips = self.decision.omit_managed_fields && is_object;
            state.event.request_object = objects::read(format, body, strips);
        }
    }

    /// Records how a request was answered. What goes on for longer is recorded as begun, and ends with its body.
    pub(crate) async fn answered(self: Arc<Self>, response: &mut Response<Body>, outcome: Outcome<'_>) {
        if let Some(deprecation) = outcome.deprecation {
            self.notes.annotate("k8s.io/deprecated".to_owned(), "true".to_owned());
            if !deprecation.removed_release.is_empty() {
                self.notes.annotate("k8s.io/removed-release".to_owned(), deprecation.removed_release.clone());
            }
        }
        self.see(response, &outcome);
        if outcome.has_panicked {
            self.record_last(Stage::Panic).await;
        } else if outcome.is_long_running {
            self.record(Stage::ResponseStarted).await;
            response.body_mut().keep(Box::new(self));
        } else {
            self.record_last(Stage::ResponseComplete).await;
        }
    }

    fn see(&self, response: &Response<Body>, outcome: &Outcome<'_>) {
        let code = response.status().as_u16();
        let mut state = self.state.lock();
        let event = &mut state.event;
        if outcome.has_panicked {
            let text = "APIServer panic'd: look in the logs for details";
            let status = json!({"status": "Failure", "message": text, "reason": "InternalError"});
            event.response_status = Some(ResponseStatus::of_status(&status, code));
            return;
        }
        event.response_status = Some(match outcome.error {
            Some(error) => ResponseStatus::of_status(&error.to_json(), code),
            None => objects::status(&event.verb, response).unwrap_or_else(|| ResponseStatus::of_code(code)),
        });
        let has_object = event.object_ref.is_some() && !outcome.is_long_running;
        if self.decision.level == Level::RequestResponse && has_object {
            event.response_object = objects::answer(response, self.decision.omit_managed_fields);
        }
    }

    /// The event of a stage, unless the policy omits that.
    fn event(&self, stage: Stage) -> Option<Event> {
        if self.decision.omit_stages.contains(stage) {
            return None;
        }
        let mut event = self.state.lock().event.clone();
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = self.clock.now();
            event.annotations = self.notes.annotations();
        }
        Some(event)
    }

    async fn record(&self, stage: Stage) -> bool {
        match self.event(stage) {
            Some(event) => self.audit.record(event).await,
            None => true,
        }
    }

    async fn record_last(&self, stage: Stage) {
        self.state.lock().is_complete = true;
        self.record(stage).await;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.is_complete {
            return;
        }
        if state.event.response_status.is_none() {
            let status = json!({"status": "Success", "message": "Connection closed early"});
            state.event.response_status = Some(ResponseStatus::of_status(&status, 200));
        }
        if let Some(event) = self.event(Stage::ResponseComplete) {
            self.audit.record_later(event);
        }
    }
}

/// What a request is about, by its path.
fn reference(call: &Call) -> Option<ObjectReference> {
    let Target::Resource(target) = &call.target else { return None };
    Some(ObjectReference {
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        api_group: target.group.clone(),
        api_version: target.version.clone(),
        subresource: target.subresource.clone(),
        ..ObjectReference::default()
    })
}
