//! The Pod Security Standards: what an administrator and the labels of a namespace ask for, and which pods each level and
//! version allows.
//!
//! Pure functions over JSON as the API stores it. Not admission: whom it concerns and what follows is the server's.
//! Invariant: texts are upstream's, as people and programs look for them.

mod checks;
mod configuration;
mod pods;
mod policy;

pub use checks::{Violation, evaluate, violations_text};
pub use configuration::{Configuration, Exemptions};
pub use pods::{Inspected, inspect, is_significant_update, pod_template};
pub use policy::{LabelError, Level, LevelVersion, Policy, Version};
