//! What runs on the cluster.

mod crash;
mod image;
mod memory_limit;
mod quota;
mod stuck_start;
mod unschedulable;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] =
    &[&unschedulable::RULE, &image::RULE, &crash::RULE, &memory_limit::RULE, &stuck_start::RULE, &quota::RULE];
