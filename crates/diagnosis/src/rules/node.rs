//! Node agents and what they say of themselves.

mod memory;
mod network;
mod processes;
mod runtime;
mod silent;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&silent::RULE, &network::RULE, &runtime::RULE, &memory::RULE, &processes::RULE];
