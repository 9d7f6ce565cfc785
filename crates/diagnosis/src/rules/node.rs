//! Node agents and what they say of themselves.

mod all_at_once;
mod allocatable;
mod cgroup_version;
mod inotify;
mod kernel_flags;
mod kubelet_port;
mod memory;
mod memory_controller;
mod network;
mod node_ip;
mod processes;
mod rebooted;
mod refused_pod;
mod reserved_name;
mod runtime;
mod sandbox_image;
mod silent;
mod stopped_kubelet;
mod stuck_runtime;
mod system_oom;
mod twin;
mod unreachable_api;

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[
    &unreachable_api::RULE,
    &silent::RULE,
    &network::RULE,
    &runtime::RULE,
    &stuck_runtime::RULE,
    &stopped_kubelet::RULE,
    &cgroup_version::RULE,
    &memory_controller::RULE,
    &kernel_flags::RULE,
    &inotify::RULE,
    &rebooted::RULE,
    &system_oom::RULE,
    &memory::RULE,
    &processes::RULE,
    &refused_pod::RULE,
    &allocatable::RULE,
    &reserved_name::RULE,
    &sandbox_image::RULE,
    &twin::RULE,
    &node_ip::RULE,
    &kubelet_port::RULE,
    &all_at_once::RULE,
];

/// A finding for each node whose condition of this type is as `holds` says, in the condition's own words.
fn by_condition(
    evidence: &Evidence,
    name: &str,
    holds: impl Fn(&Value) -> bool,
    repair: impl Fn(&str) -> Repair,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, node) in evidence.objects("Node") {
        let Some(condition) = condition(node, name).filter(|condition| holds(condition)) else { continue };
        let name = text(&node["metadata"]["name"]);
        let text = format!("{name}: {}", text(&condition["message"]));
        let finding = Finding::failure(subject(node), item, Certainty::Proven, text, vec![index], repair(name));
        found.push(finding.on_node(name));
    }
    found
}
