//! The machine below: kernel settings and disks.

mod bridge_filter;
mod full_disk;
mod ip_forward;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&ip_forward::RULE, &bridge_filter::RULE, &full_disk::RULE];
