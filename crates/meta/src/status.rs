//! `metav1.Status`: how the API says that something went wrong.
//!
//! Every error that leaves the API server is an [`ApiStatus`]; the constructors carry upstream's codes, reasons and texts.

use serde::{Deserialize, Serialize};

use crate::field::FieldError;
use crate::identity::GroupResource;

/// `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StatusReason {
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// `metav1.StatusCause`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Machine-readable cause, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Object name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource (or kind, for `Invalid`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One entry for each field that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// When a client may try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// `metav1.Status`, without its type meta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiStatus {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: StatusReason,
    /// Text for people.
    pub message: String,
    /// Which object, and what about it.
    pub details: Option<Box<StatusDetails>>,
    /// A reason that is none of upstream's, as a webhook may give one; only where `reason` is unknown.
    pub other_reason: Option<Box<str>>,
}

impl ApiStatus {
    /// A status without details.
    pub fn new(code: u16, reason: StatusReason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, other_reason: None }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(StatusDetails {
            name: name.to_owned(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..StatusDetails::default()
        }));
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, StatusReason::NotFound, format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Self {
        let mut status = Self::new(404, StatusReason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409 for a name that is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, StatusReason::AlreadyExists, format!("{resource} \"{name}\" already exists"))
            .about(resource, name)
    }

    /// 409 with the reason of the conflict.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, StatusReason::Conflict, text).about(resource, name)
    }

    /// 409 for an update that was made from an old version.
    pub fn stale_update(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403. `why` may be empty.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let text = match name.is_empty() {
            true => format!("{resource} is forbidden: {why}"),
            false => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, StatusReason::Forbidden, text).about(resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, StatusReason::Unauthorized, "Unauthorized")
    }

    /// 400.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, StatusReason::BadRequest, why)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::new(
            405,
            StatusReason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 410 for a revision that has been compacted.
    pub fn expired(why: impl Into<String>) -> Self {
        Self::new(410, StatusReason::Expired, why)
    }

    /// 500. The text is for people; log the chain at the edge.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, StatusReason::InternalError, format!("Internal error occurred: {why}"))
    }

    /// 422 with one cause for each field. `kind` is the kind, not the resource, as upstream prints it.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let list = match texts.len() {
            1 => texts[0].clone(),
            _ => format!("[{}]", texts.join(", ")),
        };
        let qualified = match group.is_empty() {
            true => kind.to_owned(),
            false => format!("{kind}.{group}"),
        };
        let mut status = Self::new(422, StatusReason::Invalid, format!("{qualified} \"{name}\" is invalid: {list}"));
        status.details = Some(Box::new(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..StatusDetails::default()
        }));
        status
    }

    /// The JSON document that goes to the client.
    pub fn to_json(&self) -> serde_json::Value {
        let mut document = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != StatusReason::Unknown {
            document["reason"] = serde_json::json!(self.reason);
        } else if let Some(reason) = &self.other_reason {
            document["reason"] = serde_json::json!(reason);
        }
        if let Some(details) = &self.details {
            document["details"] = serde_json::json!(details);
        }
        document
    }
}
