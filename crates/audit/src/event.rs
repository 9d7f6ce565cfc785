//! `audit.k8s.io/v1` Event: what is recorded of a request at one stage, as JSON or as one line of text.
//!
//! Invariant: encoded, an event is one line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use kedge_meta::{UserInfo, format_micro_time};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::policy::{Level, Stage};

/// How long a user agent may be, in bytes, before it is cut.
const LONGEST_USER_AGENT: usize = 1024;

/// Set on events that objects were taken out of.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// What is known of a request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// How much is recorded.
    pub level: Level,
    /// The request's, the same at all stages.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// When it is recorded.
    pub stage: Stage,
    /// As the client sent it.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The API verb; for what is no resource the method in small letters.
    pub verb: String,
    /// Who asks; nobody where who asked was not let in.
    #[serde(serialize_with = "user")]
    pub user: UserInfo,
    /// On whose behalf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    /// Where from: what proxies say, and last the connection's other end.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// About what; absent for what is no resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<ResponseStatus>,
    /// The object as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Arc<RawValue>>,
    /// The object as it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Arc<RawValue>>,
    /// When the request came.
    #[serde(serialize_with = "micro_time")]
    pub request_received_timestamp: Timestamp,
    /// When the stage was reached.
    #[serde(serialize_with = "micro_time")]
    pub stage_timestamp: Timestamp,
    /// What authorization and admission noted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Empty for what lies in none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Empty for collections.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where the object that was sent has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Empty for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The version of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Where the object that was sent has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Empty for the main resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// `metav1.Status` without what says nothing here.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResponseStatus {
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
    /// HTTP status code.
    pub code: u16,
}

impl ResponseStatus {
    /// An answer that is no Status.
    pub fn of_code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    /// An answer that is a Status object, and went out with `code`.
    pub fn of_status(status: &Value, code: u16) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Self {
            status: text("status"),
            message: text("message"),
            reason: text("reason"),
            details: status["details"].clone(),
            code,
            ..Self::default()
        }
    }
}

fn micro_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_micro_time(*time))
}

/// Who has no name has nothing.
fn user<S: Serializer>(user: &UserInfo, serializer: S) -> Result<S::Ok, S::Error> {
    match user.username.is_empty() {
        true => serializer.collect_map(std::iter::empty::<(&str, &str)>()),
        false => user.serialize(serializer),
    }
}

/// A user agent as long as it may be.
pub fn user_agent(text: &str) -> String {
    match text.get(..LONGEST_USER_AGENT) {
        Some(head) if text.len() > LONGEST_USER_AGENT => format!("{head}...TRUNCATED"),
        _ => text.to_owned(),
    }
}

/// An object as JSON text in one line; absent where it is no JSON.
pub fn object_of_json(text: &[u8]) -> Option<Arc<RawValue>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    // Line ends lie between the parts of a document only: within strings they are escaped.
    match text.contains(['\n', '\r']) {
        false => serde_json::from_str::<Box<RawValue>>(text).ok().map(Arc::from),
        true => serde_json::from_str::<Value>(text).ok().as_ref().and_then(object),
    }
}

/// A document as an event carries it.
pub fn object(document: &Value) -> Option<Arc<RawValue>> {
    serde_json::value::to_raw_value(document).ok().map(Arc::from)
}

impl Event {
    /// As an item of a list.
    pub fn item(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("events have only keys of text")
    }

    /// Takes the objects out; whether there may have been any.
    pub(crate) fn truncate(&mut self) -> bool {
        if self.level < Level::Request {
            return false;
        }
        (self.request_object, self.response_object) = (None, None);
        self.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        true
    }

    /// Upstream's old format: one line of text, with the line's end.
    pub(crate) fn legacy(&self) -> String {
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        let groups = |groups: &[String]| groups.iter().map(|group| quoted(group)).collect::<Vec<_>>().join(",");
        let own_groups = match self.user.username.is_empty() {
            true => String::new(),
            false => groups(&self.user.groups),
        };
        let (as_user, as_groups) = match &self.impersonated_user {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) => (user.username.clone(), or(&groups(&user.groups), "<lookup>")),
        };
        let namespace = self.object_ref.as_ref().map_or("", |object| &object.namespace);
        let code = self.response_status.as_ref().map(|status| status.code.to_string()).unwrap_or_default();
        let source = self.source_ips.first().map_or("", String::as_str);
        let mut line = format!("{} AUDIT:", short_time(self.request_received_timestamp));
        for (name, text) in [
            ("id", self.audit_id.clone()),
            ("stage", self.stage.as_str().to_owned()),
            ("ip", or(source, "<unknown>")),
            ("method", self.verb.clone()),
            ("user", or(&self.user.username, "<none>")),
            ("groups", or(&own_groups, "<none>")),
            ("as", as_user),
            ("asgroups", as_groups),
            ("user-agent", self.user_agent.clone()),
            ("namespace", or(namespace, "<none>")),
            ("uri", self.request_uri.clone()),
        ] {
            let _ = write!(line, " {name}={}", quoted(&text));
        }
        let _ = writeln!(line, " response=\"{}\"", or(&code, "<deferred>"));
        line
    }
}

/// RFC 3339 with as many digits after the second as there are.
fn short_time(time: Timestamp) -> String {
    let text = format_micro_time(time);
    let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{text}Z")
}

/// A text in quotes, on one line.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use kedge_meta::parse_time;
    use serde_json::json;

    use super::*;

    pub(crate) fn event(id: &str) -> Event {
        let time = parse_time("2026-01-02T03:04:05.678Z").unwrap();
        Event {
            level: Level::Request,
            audit_id: id.to_owned(),
            stage: Stage::ResponseComplete,
            request_uri: "/api/v1/namespaces/a/pods?x=1".to_owned(),
            verb: "create".to_owned(),
            user: UserInfo::authenticated("jane", ["g"]),
            impersonated_user: None,
            source_ips: vec!["192.0.2.1".to_owned()],
            user_agent: "kubectl".to_owned(),
            object_ref: Some(ObjectReference {
                resource: "pods".to_owned(),
                namespace: "a".to_owned(),
                api_version: "v1".to_owned(),
                ..ObjectReference::default()
            }),
            response_status: Some(ResponseStatus::of_code(201)),
            request_object: object(&json!({"kind": "Pod"})),
            response_object: None,
            request_received_timestamp: time,
            stage_timestamp: time,
            annotations: BTreeMap::from([("authorization.k8s.io/decision".to_owned(), "allow".to_owned())]),
        }
    }

    #[test]
    fn events_are_written_as_upstream_writes_them() {
        assert_eq!(
            String::from_utf8(event("i").item()).unwrap(),
            concat!(
                r#"{"level":"Request","auditID":"i","stage":"ResponseComplete","#,
                r#""requestURI":"/api/v1/namespaces/a/pods?x=1","verb":"create","#,
                r#""user":{"username":"jane","groups":["g","system:authenticated"]},"sourceIPs":["192.0.2.1"],"#,
                r#""userAgent":"kubectl","objectRef":{"resource":"pods","namespace":"a","apiVersion":"v1"},"#,
                r#""responseStatus":{"metadata":{},"code":201},"requestObject":{"kind":"Pod"},"#,
                r#""requestReceivedTimestamp":"2026-01-02T03:04:05.678000Z","#,
                r#""stageTimestamp":"2026-01-02T03:04:05.678000Z","#,
                r#""annotations":{"authorization.k8s.io/decision":"allow"}}"#
            )
        );
    }

    #[test]
    fn the_old_format_is_one_line() {
        assert_eq!(
            event("i").legacy(),
            concat!(
                r#"2026-01-02T03:04:05.678Z AUDIT: id="i" stage="ResponseComplete" ip="192.0.2.1" method="create" "#,
                r#"user="jane" groups="\"g\",\"system:authenticated\"" as="<self>" asgroups="<lookup>" "#,
                r#"user-agent="kubectl" namespace="a" uri="/api/v1/namespaces/a/pods?x=1" response="201""#,
                "\n"
            )
        );
        let mut bare = event("i");
        bare.user = UserInfo::default();
        (bare.object_ref, bare.response_status, bare.source_ips) = (None, None, Vec::new());
        bare.impersonated_user = Some(UserInfo { username: "x\ny".to_owned(), ..UserInfo::default() });
        assert!(String::from_utf8(bare.item()).unwrap().contains(r#","user":{},"#));
        let line = bare.legacy();
        for part in
            [r#"ip="<unknown>""#, r#"user="<none>" groups="<none>""#, r#"as="x\ny""#, r#"response="<deferred>""#]
        {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn objects_are_one_line_or_absent() {
        let check = |text: &str, expected: Option<&str>| {
            let found = object_of_json(text.as_bytes());
            assert_eq!(found.as_deref().map(RawValue::get), expected, "{text:?}");
        };
        check("{\"a\": 1}\n", Some("{\"a\": 1}"));
        check("{\n  \"a\": \"x\\ny\"\r\n}\n", Some(r#"{"a":"x\ny"}"#));
        check("{\"a\":", None);
        check("a: 1", None);
        check("", None);
    }

    #[test]
    fn long_user_agents_are_cut() {
        assert_eq!(user_agent("kubectl"), "kubectl");
        let cut = user_agent(&"x".repeat(2000));
        assert_eq!((cut.len(), cut.ends_with("x...TRUNCATED")), (1024 + 12, true));
    }
}
