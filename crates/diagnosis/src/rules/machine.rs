//! The machine below: kernel settings, disks, memory, time.

mod bridge_filter;
mod clock;
mod connection_table;
mod denied;
mod eviction_bound;
mod failing_disk;
mod full_disk;
mod hardware_error;
mod hung_tasks;
mod ip_forward;
mod killed_component;
mod missing_module;
mod no_inodes;
mod node_name;
mod reboot_loop;
mod reference_leak;
mod reverted_setting;
mod small_filesystem;
mod xfs_shutdown;

use crate::evidence::Evidence;
use crate::facts::LogSource;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{one_of_each_machine, told_within};
use crate::rules::{Explains, Rule, Scope};

pub(super) const RULES: &[&Rule] = &[
    &ip_forward::RULE,
    &bridge_filter::RULE,
    &full_disk::RULE,
    &small_filesystem::RULE,
    &no_inodes::RULE,
    &failing_disk::RULE,
    &xfs_shutdown::RULE,
    &hung_tasks::RULE,
    &killed_component::RULE,
    &hardware_error::RULE,
    &reference_leak::RULE,
    &connection_table::RULE,
    &clock::RULE,
    &denied::RULE,
    &reboot_loop::RULE,
    &node_name::RULE,
    &missing_module::RULE,
    &reverted_setting::RULE,
];

/// Seconds for which the kernel's word on a disk or on memory counts: it does not heal by itself.
const DAY: i64 = 86_400;

/// What a file system that takes no writes leads to.
const FILE_SYSTEM_EFFECTS: &[Explains] = &[
    Explains { ids: &["A1", "A15", "A16", "H2", "H3"], scope: Scope::Anywhere },
    Explains { ids: &["B1", "B5", "B14", "E2", "E4", "E5", "E6", "E17", "F1", "W1", "W2"], scope: Scope::SameNode },
];

/// A finding for each machine whose kernel said it within so many seconds.
fn told_by_kernel(
    evidence: &Evidence,
    span: i64,
    wanted: impl Fn(&str) -> bool,
    tell: impl Fn(&str) -> (String, Repair),
) -> Vec<Finding> {
    // Pasted text does not always say that it is the kernel's.
    let is_kernel = |source: &LogSource| matches!(source, LogSource::Kernel | LogSource::Command(_));
    let told = told_within(evidence, span, |line| is_kernel(&line.source) && wanted(&line.text), |_| false);
    one_of_each_machine(told.iter().map(|told| {
        let (text, repair) = tell(told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Proven, text, repair)
    }))
}
