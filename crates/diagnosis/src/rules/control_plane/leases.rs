//! Leaders that lose their leases: what three causes have in common.
//!
//! Not a rule. Why a lease was lost is told by what else is seen: the store's disk, the API server's answers, the way there.

use crate::evidence::Evidence;
use crate::finding::Subject;
use crate::rules::signs::{Sign, Told};

/// One loss may be a restart of something else; several are a trouble, also while the lease is held again.
const OFTEN: usize = 3;
const HELD: &[&str] = &["successfully acquired lease", "Successfully acquired lease", "became the leader"];
const WORDS: &[&[&str]] = &[
    &["leaderelection lost"],
    &["Leaderelection lost"],
    &["leader election lost"],
    &["failed to renew lease"],
    &["Failed to renew lease"],
    &["the lease could not be renewed"],
];
const LOST: Sign = Sign { programs: &[], words: WORDS, over: HELD };
const LOST_OFTEN: Sign = Sign { programs: &[], words: WORDS, over: &[] };
/// The way to the server that has the lease is closed.
pub(super) const CLOSED: Sign = Sign {
    programs: &[],
    words: &[
        &["lock", "dial tcp", "i/o timeout"],
        &["lease", "dial tcp", "i/o timeout"],
        &["lock", "dial tcp", "no route to host"],
        &["lease", "dial tcp", "no route to host"],
        &["lock", "dial tcp", "network is unreachable"],
    ],
    over: &["successfully acquired lease", "became the leader"],
};

/// Whoever has lost a lease and has not got it back, or loses it again and again: any controller, not only the cluster's own.
pub(super) fn lost(evidence: &Evidence) -> Vec<Told<'_>> {
    let mut lost = LOST.told(evidence);
    for often in LOST_OFTEN.told(evidence).into_iter().filter(|told| told.count >= OFTEN) {
        if !lost.iter().any(|known| known.source == often.source && known.item.place == often.item.place) {
            lost.push(often);
        }
    }
    lost
}

/// Who they are, in words.
pub(super) fn names(lost: &[Told<'_>]) -> String {
    let mut names: Vec<&str> = lost.iter().map(|told| told.source.program()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// The pods that it happened to.
pub(super) fn victims(lost: &[Told<'_>]) -> Vec<Subject> {
    lost.iter().map(|told| told.source.subject()).collect()
}

/// The items that prove it.
pub(super) fn proof(lost: &[Told<'_>]) -> impl Iterator<Item = usize> {
    lost.iter().flat_map(|told| told.lines.iter().copied())
}
