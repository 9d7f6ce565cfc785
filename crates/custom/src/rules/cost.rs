//! What evaluating a rule may cost at most: from the values at hand, or from what a schema allows.

use cel::parser::Expression;
use kedge_expressions::{MOST_ELEMENTS, cost, largest, path};
use serde_json::Value;

use crate::node::Node;

/// What an evaluation costs at most.
pub(super) fn reckon(expression: &Expression, value: &Value, old: Option<&Value>) -> u64 {
    let variable = |name: &str| match name {
        "self" => Some(value),
        "oldSelf" => old,
        _ => None,
    };
    let largest = old.map_or(0, largest).max(largest(value));
    kedge_expressions::reckon(expression, &variable, largest)
}

/// What an evaluation costs at most for any value that a schema allows.
pub(crate) fn estimate(expression: &Expression, node: &Node) -> u64 {
    let count = |part: &Expression| {
        let (_, fields) = path(part).filter(|(root, _)| matches!(*root, "self" | "oldSelf"))?;
        let found = fields.iter().try_fold(node, |node, name| node.properties.get(*name));
        Some(found.map_or(1, most))
    };
    // Of what is made on the way nothing is known; the evaluation itself is bounded.
    cost(expression, &count, 1)
}

/// How large a value may get.
fn most(node: &Node) -> u64 {
    let bounds = &node.bounds;
    match node.kind.as_str() {
        "integer" | "number" | "boolean" => 1,
        "string" => bounds.lengths.max.or_else(|| longest_option(node)).unwrap_or(MOST_ELEMENTS),
        _ => bounds.items.max.or(bounds.properties.max).unwrap_or(MOST_ELEMENTS),
    }
}

/// The length of the longest text that may stand there, where all are listed.
fn longest_option(node: &Node) -> Option<u64> {
    node.bounds.options.iter().map(|option| option.as_str().unwrap_or_default().len() as u64).max()
}
