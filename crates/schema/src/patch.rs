//! The three kinds of patches that change an object without owning fields: JSON patch, merge patch, strategic merge patch.
//!
//! All work on documents in memory and know nothing of validity: whoever applies one checks the result with
//! [`crate::validate_fields`].

mod json_patch;
mod merge_patch;
mod strategic;

use kedge_meta::{ApiStatus, StatusDetails, StatusReason};
use serde_json::Value;

pub use json_patch::json_patch;
pub use merge_patch::{create_merge_patch, merge_patch};
pub use strategic::strategic_merge_patch;

/// How deep a document nests; a scalar and an empty container are 0 deep.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.values().map(|value| depth(value) + 1).max().unwrap_or(0),
        Value::Array(list) => list.iter().map(|value| depth(value) + 1).max().unwrap_or(0),
        _ => 0,
    }
}

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object; upstream keeps the reason to itself and answers 422.
    #[error("{0}")]
    Unprocessable(String),
    /// More operations than a JSON patch may have.
    #[error("{0}")]
    TooLarge(String),
    /// It contradicts the facts of the type; upstream answers 500.
    #[error("{0}")]
    Contradictory(String),
}

impl PatchError {
    /// The answer to the client.
    pub fn into_status(self) -> ApiStatus {
        match self {
            PatchError::Malformed(text) => ApiStatus::new(400, StatusReason::BadRequest, text),
            PatchError::Unprocessable(_) => {
                let text = "the server rejected our request due to an error in our request";
                let mut status = ApiStatus::new(422, StatusReason::Invalid, text);
                status.details = Some(Box::new(StatusDetails::default()));
                status
            }
            PatchError::TooLarge(text) => {
                let text = format!("Request entity is too large: {text}");
                ApiStatus::new(413, StatusReason::RequestEntityTooLarge, text)
            }
            PatchError::Contradictory(text) => ApiStatus::new(500, StatusReason::Unknown, text),
        }
    }
}
