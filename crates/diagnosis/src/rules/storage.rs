//! Volumes and claims.

mod missing_source;
mod no_class;
mod still_attached;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&no_class::RULE, &still_attached::RULE, &missing_source::RULE];
