//! The strategy of definitions themselves: what their kind says, and what holds for their schemas.

use kedge_kinds::{NameRule, Strategy, StrategyRef, WriteContext};
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::conditions::CLEANUP_FINALIZER;
use crate::json::items;
use crate::review;

/// Of customresourcedefinitions.
pub struct DefinitionStrategy {
    base: StrategyRef,
}

impl DefinitionStrategy {
    /// Over the strategy that the kind has of its own.
    pub fn new(base: StrategyRef) -> Self {
        Self { base }
    }
}

impl Strategy for DefinitionStrategy {
    fn name_rule(&self) -> NameRule {
        self.base.name_rule()
    }

    fn has_generation(&self) -> bool {
        self.base.has_generation()
    }

    fn allows_unconditional_update(&self) -> bool {
        self.base.allows_unconditional_update()
    }

    fn deletion_finalizer(&self) -> Option<&'static str> {
        Some(CLEANUP_FINALIZER)
    }

    fn default(&self, object: &mut Value) {
        self.base.default(object);
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        self.base.prepare_create(object, context);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        self.base.prepare_update(new, old);
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        self.base.validate_create(object, errors);
        errors.extend(review::check(object, None));
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.base.validate_update(new, old, errors);
        errors.extend(review::check(new, Some(old)));
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        let stored = items(new, &["status", "storedVersions"]);
        let path = kedge_meta::FieldPath::new("status").child("storedVersions");
        if stored.is_empty() {
            errors.push(FieldError::invalid(&path, &json!(stored), "must have at least one stored version"));
        }
    }

    fn columns(&self) -> &[kedge_kinds::Column] {
        self.base.columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        self.base.row(object, now)
    }
}
