//! Custom resources: from a CustomResourceDefinition to a kind like any other.
//!
//! Pure: no clock, no I/O, no store. What a definition says becomes a [`kedge_kinds::Kind`] with a strategy of its own, so
//! that custom resources take the path of every kind. Invariant: nothing that a definition or an object says makes work
//! without bound (patterns, rules, depth, numbers of errors).

mod check;
mod columns;
mod conditions;
mod defaults;
mod definition;
mod definition_strategy;
mod embedded;
mod formats;
mod instances;
mod json;
mod json_path;
mod list_types;
mod names;
mod node;
mod place;
mod prune;
mod review;
mod rules;
mod schema_rules;
mod structural;
mod timing;
mod validations;
mod version;

pub use conditions::{CLEANUP_FINALIZER, Condition, has_condition, set_condition};
pub use definition::{kinds, storage_version};
pub use definition_strategy::DefinitionStrategy;
pub use names::{NameBook, settle};
pub use timing::{Timing, Untimed};
pub use version::Version;
