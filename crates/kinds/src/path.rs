//! A field's path as a chain of borrowed parts, so that validation builds no text unless something is wrong.
//!
//! The invariant: nothing is allocated before an error is reported.

use kedge_meta::{FieldError, FieldPath};
use serde_json::Value;

/// A path such as `spec.containers[0].name`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A field at the root.
    pub(crate) const fn root(name: &'a str) -> Self {
        Self { parent: None, part: Part::Field(name) }
    }

    /// A field below this one.
    pub(crate) const fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), part: Part::Field(name) }
    }

    /// A list item.
    pub(crate) const fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), part: Part::Index(index) }
    }

    /// A map entry.
    pub(crate) const fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), part: Part::Key(key) }
    }

    /// The path that errors carry.
    pub(crate) fn build(&self) -> FieldPath {
        let parent = self.parent.map(Path::build).unwrap_or_default();
        match self.part {
            Part::Field(name) => parent.child(name),
            Part::Index(index) => parent.index(index),
            Part::Key(key) => parent.key(key),
        }
    }

    /// Reports a value that is wrong.
    pub(crate) fn invalid(&self, errors: &mut Vec<FieldError>, value: impl Into<Value>, why: &str) {
        errors.push(FieldError::invalid(&self.build(), &value.into(), why));
    }

    /// Reports a value once for each text of what is wrong with it.
    pub(crate) fn check(&self, errors: &mut Vec<FieldError>, value: &str, wrong: Vec<String>) {
        for why in wrong {
            self.invalid(errors, value, &why);
        }
    }

    /// Reports a number once for each text of what is wrong with it.
    pub(crate) fn check_number(&self, errors: &mut Vec<FieldError>, value: i64, wrong: Vec<String>) {
        for why in wrong {
            self.invalid(errors, value, &why);
        }
    }

    /// Reports a field that must be set.
    pub(crate) fn required(&self, errors: &mut Vec<FieldError>, why: &str) {
        errors.push(FieldError::required(&self.build(), why));
    }

    /// Reports a field that may not be set or changed.
    pub(crate) fn forbidden(&self, errors: &mut Vec<FieldError>, why: &str) {
        errors.push(FieldError::forbidden(&self.build(), why));
    }

    /// Reports a value that stands twice.
    pub(crate) fn duplicate(&self, errors: &mut Vec<FieldError>, value: impl Into<Value>) {
        errors.push(FieldError::duplicate(&self.build(), &value.into()));
    }

    /// Reports a name that names nothing.
    pub(crate) fn not_found(&self, errors: &mut Vec<FieldError>, value: &str) {
        errors.push(FieldError::not_found(&self.build(), &Value::from(value)));
    }

    /// Reports a value that is longer than `limit` bytes.
    pub(crate) fn too_long(&self, errors: &mut Vec<FieldError>, limit: usize) {
        errors.push(FieldError::too_long(&self.build(), limit));
    }

    /// Reports a list with more than `limit` items.
    pub(crate) fn too_many(&self, errors: &mut Vec<FieldError>, actual: usize, limit: usize) {
        errors.push(FieldError::too_many(&self.build(), actual, limit));
    }

    /// Reports a value that is not one of `supported`.
    pub(crate) fn one_of(&self, errors: &mut Vec<FieldError>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            errors.push(FieldError::not_supported_in_order(&self.build(), &Value::from(value), supported));
        }
    }

    /// Reports a value that is empty, or else not one of `supported`.
    pub(crate) fn required_one_of(&self, errors: &mut Vec<FieldError>, value: &str, supported: &[&str]) {
        match value {
            "" => self.required(errors, ""),
            _ => self.one_of(errors, value, supported),
        }
    }

    /// Reports a number below zero.
    pub(crate) fn not_negative(&self, errors: &mut Vec<FieldError>, value: i64) {
        if value < 0 {
            self.invalid(errors, value, NEGATIVE);
        }
    }

    /// Reports a number that is not above zero.
    pub(crate) fn positive(&self, errors: &mut Vec<FieldError>, value: i64) {
        if value <= 0 {
            self.invalid(errors, value, "must be greater than zero");
        }
    }

    /// Reports a field that differs between two objects; absent equals null.
    pub(crate) fn immutable(&self, errors: &mut Vec<FieldError>, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            self.invalid(errors, new.cloned().unwrap_or(Value::Null), IMMUTABLE);
        }
    }
}

/// Text for a number below zero.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";

/// Text for a field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";
