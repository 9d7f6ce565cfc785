//! Certificates and time.

mod expired;
mod not_yet_valid;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&expired::RULE, &not_yet_valid::RULE];
