//! Volumes and claims.
//!
//! I2 of the catalogue, a claim that waits for its first consumer, is no trouble and has no rule: a test here holds all
//! rules to that.

mod attach_limit;
mod dead_share;
mod elsewhere;
mod file_system;
mod iscsi;
mod missing_source;
mod multipath;
mod no_class;
mod no_provisioner;
mod not_mounted;
mod orphans;
mod provisioning;
mod still_attached;
mod unreclaimed;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[
    &no_class::RULE,
    &no_provisioner::RULE,
    &provisioning::RULE,
    &still_attached::RULE,
    &not_mounted::RULE,
    &multipath::RULE,
    &iscsi::RULE,
    &dead_share::RULE,
    &attach_limit::RULE,
    &elsewhere::RULE,
    &orphans::RULE,
    &unreclaimed::RULE,
    &missing_source::RULE,
    &file_system::RULE,
];
