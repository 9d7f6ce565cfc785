//! The life of a cluster: what init, join, upgrade and reset run into.

mod certificate_key;
mod control_plane_check;
mod control_plane_taint;
mod firewall;
mod half_reset;
mod hostname;
mod join_packets;
mod kubelet_check;
mod kubelet_config;
mod kubelet_version;
mod leftovers;
mod no_network_yet;
mod old_runtime;
mod removed_flag;
mod signature;
mod swap;
mod token;
mod uploaded_certificates;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::Rule;
use crate::rules::lines::{says, told_of_machines};

pub(super) use no_network_yet::is_expected as has_no_network_yet;

pub(super) const RULES: &[&Rule] = &[
    &hostname::RULE,
    &swap::RULE,
    &firewall::RULE,
    &old_runtime::RULE,
    &kubelet_version::RULE,
    &leftovers::RULE,
    &kubelet_check::RULE,
    &control_plane_check::RULE,
    &uploaded_certificates::RULE,
    &certificate_key::RULE,
    &token::RULE,
    &signature::RULE,
    &no_network_yet::RULE,
    &control_plane_taint::RULE,
    &removed_flag::RULE,
    &kubelet_config::RULE,
    &half_reset::RULE,
    &join_packets::RULE,
];

/// A finding for each machine on which a command ended with one of these texts.
fn told_by_command(evidence: &Evidence, forms: &[&[&str]], meaning: &str, repair: &Repair) -> Vec<Finding> {
    told_of_machines(
        evidence,
        |line| says(&line.text, forms),
        |line| {
            says(&line.text, &[&["This node has joined the cluster"], &["control-plane has initialized successfully"]])
        },
        |_| (meaning.to_owned(), repair.clone()),
    )
}
