//! Who owns which field: `metadata.managedFields`, and server-side apply on top of it.
//!
//! Every write goes through here: a plain write records what it changed ([`update_managed_fields`]), an apply merges what it
//! wants with what is there and refuses to take what others own ([`apply`]). Deciding only: the time comes from the caller.
//!
//! DIVERGES: sets that were recorded under another version of the same kind are compared as they stand; upstream converts
//! the object first. The field paths of the versions that are served differ in few places.

mod applying;
mod compare;
mod configure;
mod field_set;
mod list_items;
mod managers;
mod merge;
mod path_element;
mod scale;
mod select;
#[cfg(test)]
mod tests;
mod tracking;
mod typed_check;

use kedge_meta::{ApiStatus, StatusCause, StatusDetails, StatusReason};

pub use applying::{Applied, apply};
pub use configure::configure;
pub use field_set::{FieldSet, ParseFieldSetError};
pub use path_element::{PathElement, Scalar};
pub use scale::{managers_after_scale, managers_of_scale};
pub use tracking::update_managed_fields;

/// Who writes, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager; upstream takes the user agent's first part where the client names none.
    pub manager: &'a str,
    /// `apps/v1`, of the request.
    pub api_version: &'a str,
    /// `Deployment`
    pub kind: &'a str,
    /// `status`, `scale`, or empty.
    pub subresource: &'a str,
    /// Now, as `2026-01-02T03:04:05Z`.
    pub time: &'a str,
}

/// Fields that the resource's strategy resets on write, so that nobody comes to own them: `status` for the main resource,
/// `spec` and more for `status`. Each is a path of field names.
pub type ResetFields<'a> = [&'a [&'a str]];

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager as texts show it: `"kubectl" using apps/v1 at 2026-01-02T03:04:05Z`.
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that would change.
    #[error("{}", conflict_message(.0))]
    Conflict(Vec<Conflict>),
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the type; upstream answers 500.
    #[error("{0}")]
    Typed(String),
}

impl ApplyError {
    /// The answer to the client.
    pub fn into_status(self) -> ApiStatus {
        let message = self.to_string();
        match self {
            ApplyError::BadRequest(_) => ApiStatus::new(400, StatusReason::BadRequest, message),
            ApplyError::Typed(_) => ApiStatus::new(500, StatusReason::Unknown, message),
            ApplyError::Conflict(conflicts) => {
                let mut status = ApiStatus::new(409, StatusReason::Conflict, message);
                let causes = conflicts.into_iter().map(|conflict| StatusCause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", conflict.manager),
                    field: conflict.field,
                });
                status.details = Some(Box::new(StatusDetails { causes: causes.collect(), ..StatusDetails::default() }));
                status
            }
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", conflict.manager, conflict.field);
    }
    let mut lines = Vec::new();
    let mut last = "";
    for conflict in conflicts {
        if conflict.manager != last {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = &conflict.manager;
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
