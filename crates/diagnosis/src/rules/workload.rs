//! What runs on the cluster.

mod crash;
mod disruption_budget;
mod image;
mod memory_limit;
mod missing_right;
mod no_endpoints;
mod placement;
mod probe;
mod quota;
mod service_account;
mod stuck_start;
mod unschedulable;

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{container_statuses, is_leaving, subject, text};
use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[
    &unschedulable::RULE,
    &image::RULE,
    &crash::RULE,
    &memory_limit::RULE,
    &stuck_start::RULE,
    &quota::RULE,
    &disruption_budget::RULE,
    &service_account::RULE,
    &missing_right::RULE,
    &probe::RULE,
    &no_endpoints::RULE,
];

/// A finding for each pod with a container where `holds` is true of both, the pod and the container's status; `tell` gives
/// its text and its repair.
pub(super) fn by_container(
    evidence: &Evidence,
    holds: impl Fn(&Value, &Value) -> bool,
    tell: impl Fn(&Subject, &Value) -> (String, Repair),
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let Some(status) = container_statuses(pod).find(|status| holds(pod, status)) else { continue };
        let subject = subject(pod);
        let (told, repair) = tell(&subject, status);
        let finding = Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair);
        found.push(finding.on_node(text(&pod["spec"]["nodeName"])));
    }
    found
}
