//! Node agents and what they say of themselves.

mod memory;
mod network;
mod processes;
mod runtime;
mod silent;

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&silent::RULE, &network::RULE, &runtime::RULE, &memory::RULE, &processes::RULE];

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
