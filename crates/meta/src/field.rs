//! Paths of fields and what may be wrong with them, in the texts of upstream's `field.Error`.

use std::fmt;

use crate::status::StatusCause;

/// A path such as `spec.containers[0].name`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path of one field.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of a field below this one.
    pub fn child(&self, name: &str) -> Self {
        match self.0.is_empty() {
            true => Self(name.to_owned()),
            false => self.with([".", name, ""]),
        }
    }

    /// The path of a list item.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of a map entry.
    pub fn key(&self, key: &str) -> Self {
        self.with(["[", key, "]"])
    }

    /// Paths are made for every field of every object that is written: in one piece, and without `format!`.
    fn with(&self, parts: [&str; 3]) -> Self {
        let mut path = String::with_capacity(self.0.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        path.push_str(&self.0);
        parts.into_iter().for_each(|part| path.push_str(part));
        Self(path)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `field.ErrorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FieldErrorKind {
    Invalid,
    Required,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    InternalError,
}

/// One thing that is wrong with one field. Displays as upstream prints it, for example
/// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    kind: FieldErrorKind,
    field: String,
    text: String,
}

impl FieldError {
    /// The same of an object that lies at `parent`.
    pub fn below(mut self, parent: &FieldPath) -> Self {
        let parent = parent.to_string();
        if !parent.is_empty() {
            self.field = format!("{parent}.{}", self.field);
        }
        self
    }

    /// The value is there but wrong. Strings are quoted in the text, other values printed as JSON.
    pub fn invalid(path: &FieldPath, value: &serde_json::Value, why: &str) -> Self {
        Self::make(FieldErrorKind::Invalid, path, format!("Invalid value: {value}: {why}"))
    }

    /// The value is of another type than the field.
    pub fn type_invalid(path: &FieldPath, value: &serde_json::Value, why: &str) -> Self {
        Self::make(FieldErrorKind::TypeInvalid, path, format!("Invalid value: {value}: {why}"))
    }

    /// The field must be set. `why` may be empty.
    pub fn required(path: &FieldPath, why: &str) -> Self {
        let text = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self::make(FieldErrorKind::Required, path, text)
    }

    /// The value is not one of `supported`.
    pub fn not_supported(path: &FieldPath, value: &serde_json::Value, supported: &[&str]) -> Self {
        let mut supported: Vec<String> = supported.iter().map(|value| format!("\"{value}\"")).collect();
        supported.sort();
        let text = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self::make(FieldErrorKind::NotSupported, path, text)
    }

    /// The value is not one of `supported`, which the text lists in the order given.
    pub fn not_supported_in_order(path: &FieldPath, value: &serde_json::Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|value| format!("\"{value}\"")).collect();
        let text = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self::make(FieldErrorKind::NotSupported, path, text)
    }

    /// The value may stand only once.
    pub fn duplicate(path: &FieldPath, value: &serde_json::Value) -> Self {
        Self::make(FieldErrorKind::Duplicate, path, format!("Duplicate value: {value}"))
    }

    /// The field may not be set (or changed).
    pub fn forbidden(path: &FieldPath, why: &str) -> Self {
        Self::make(FieldErrorKind::Forbidden, path, format!("Forbidden: {why}"))
    }

    /// The text is longer than `limit` bytes.
    pub fn too_long(path: &FieldPath, limit: usize) -> Self {
        Self::make(FieldErrorKind::TooLong, path, format!("Too long: may not be more than {limit} bytes"))
    }

    /// The list has more than `limit` items.
    pub fn too_many(path: &FieldPath, actual: usize, limit: usize) -> Self {
        Self::make(FieldErrorKind::TooMany, path, format!("Too many: {actual}: must have at most {limit} items"))
    }

    /// What the field names is not there.
    pub fn not_found(path: &FieldPath, value: &serde_json::Value) -> Self {
        Self::make(FieldErrorKind::NotFound, path, format!("Not found: {value}"))
    }

    /// Which kind of error it is.
    pub fn kind(&self) -> FieldErrorKind {
        self.kind
    }

    /// The field's path.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The entry for `Status.details.causes`.
    pub fn cause(&self) -> StatusCause {
        let reason = match self.kind {
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::InternalError => "InternalError",
        };
        StatusCause { reason: reason.to_owned(), message: self.text.clone(), field: self.field.clone() }
    }

    fn make(kind: FieldErrorKind, path: &FieldPath, text: String) -> Self {
        Self { kind, field: path.to_string(), text }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.is_empty() {
            true => f.write_str(&self.text),
            false => write!(f, "{}: {}", self.field, self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_upstreams() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        assert_eq!(path.to_string(), "spec.containers[0].name");
        let invalid = FieldError::invalid(&FieldPath::new("spec").child("replicas"), &json!(-1), "must not be");
        assert_eq!(invalid.to_string(), "spec.replicas: Invalid value: -1: must not be");
        let unsupported = FieldError::not_supported(&path, &json!("x"), &["b", "a"]);
        assert_eq!(
            unsupported.to_string(),
            "spec.containers[0].name: Unsupported value: \"x\": supported values: \"a\", \"b\""
        );
        assert_eq!(invalid.cause().reason, "FieldValueInvalid");
    }
}
