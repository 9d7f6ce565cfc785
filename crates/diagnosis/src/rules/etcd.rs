//! The store: etcd's own words, its health and its members.

mod bootstrapped;
mod clock_drift;
mod foreign_cluster;
mod full_disk;
mod full_store;
mod leader_changes;
mod locked_files;
mod no_leader;
mod rejected_peers;
mod slow_disk;
mod stale_member;
mod terminated;
mod torn_files;
mod unreachable_peer;

use serde_json::Value;

use crate::evidence::{Evidence, Item};
use crate::rules::{Explains, Rule, Scope};

pub(super) use clock_drift::SIGN as CLOCK_DRIFT;
pub(super) use slow_disk::slow_for_leases;

pub(super) const RULES: &[&Rule] = &[
    &slow_disk::RULE,
    &full_store::RULE,
    &no_leader::RULE,
    &leader_changes::RULE,
    &torn_files::RULE,
    &foreign_cluster::RULE,
    &bootstrapped::RULE,
    &stale_member::RULE,
    &rejected_peers::RULE,
    &clock_drift::RULE,
    &unreachable_peer::RULE,
    &locked_files::RULE,
    &terminated::RULE,
    &full_disk::RULE,
];

/// Who writes the store's log.
pub(super) const STORE: &[&str] = &["etcd"];

/// What shows where the store fails, or a member of it cannot start.
const OF_THE_STORE: &[Explains] = &[
    Explains { ids: &["A2", "A4", "A15", "A16", "A17", "D10", "E1", "H2", "H3"], scope: Scope::Anywhere },
    Explains { ids: &["W1"], scope: Scope::ControlPlane },
];

/// What shows where the machine of a member fails: the store's own troubles as well.
const OF_A_MEMBER: &[Explains] = &[
    Explains {
        ids: &["A2", "A4", "A15", "A16", "A17", "B3", "B4", "B11", "B13", "D10", "E1", "H2", "H3"],
        scope: Scope::Anywhere,
    },
    Explains { ids: &["W1"], scope: Scope::ControlPlane },
];

/// What stores said of themselves when they were asked: `health`, `status`, `alarms`, `members`.
pub(super) fn answers(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &Value)> {
    evidence.documents("etcd")
}
