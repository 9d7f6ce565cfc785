//! The pod network.

mod no_ranges;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&no_ranges::RULE];
