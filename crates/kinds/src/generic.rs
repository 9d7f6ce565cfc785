//! The strategy of kinds that need nothing but switches.
//!
//! It validates no more than metadata. The invariant: a kind that needs a function of its own gets a file of its own.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::{Column, NameRule, Strategy};

/// A strategy out of switches.
#[derive(Debug, Clone, Copy)]
pub struct Generic {
    /// Which names objects may have.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of `spec`.
    pub generation: bool,
    /// Whether PUT of an object that is not there creates it.
    pub creates_on_update: bool,
    /// Whether an update without `resourceVersion` is taken.
    pub unconditional_update: bool,
}

impl Generic {
    /// Subdomain names, no generation, no creation by PUT.
    pub const PLAIN: Self = Self {
        name_rule: NameRule::Subdomain,
        generation: false,
        creates_on_update: false,
        unconditional_update: true,
    };

    /// As [`Generic::PLAIN`], with a generation.
    pub const COUNTED: Self = Self { generation: true, ..Self::PLAIN };
}

impl Strategy for Generic {
    fn name_rule(&self) -> NameRule {
        self.name_rule
    }

    fn has_generation(&self) -> bool {
        self.generation
    }

    fn creates_on_update(&self) -> bool {
        self.creates_on_update
    }

    fn allows_unconditional_update(&self) -> bool {
        self.unconditional_update
    }
}

/// A strategy out of switches, with a table of its own.
pub(crate) struct Printed {
    /// The switches.
    pub(crate) generic: Generic,
    /// The columns of its table.
    pub(crate) columns: &'static [Column],
    /// The cells of an object's row.
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Strategy for Printed {
    fn name_rule(&self) -> NameRule {
        self.generic.name_rule
    }

    fn has_generation(&self) -> bool {
        self.generic.generation
    }

    fn creates_on_update(&self) -> bool {
        self.generic.creates_on_update
    }

    fn allows_unconditional_update(&self) -> bool {
        self.generic.unconditional_update
    }

    fn columns(&self) -> &[Column] {
        self.columns
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }
}
