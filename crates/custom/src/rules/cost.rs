//! What evaluating a rule may cost at most: from the values at hand, or from what a schema allows.

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;
use serde_json::Value;

use crate::node::Node;

/// How many elements a list or map may have of which the schema says no bound: what fits into a request.
pub(crate) const MOST_ELEMENTS: u64 = 1 << 20;

/// What an evaluation costs at most.
pub(super) fn reckon(expression: &Expression, value: &Value, old: Option<&Value>) -> u64 {
    let largest = old.map_or(0, largest).max(largest(value));
    cost(expression, &|range| {
        let named = path(range).and_then(|(root, fields)| {
            let start = if root == "self" { Some(value) } else { old.filter(|_| root == "oldSelf") };
            let found = fields.iter().try_fold(start?, |value, name| value.get(*name))?;
            Some(size(found))
        });
        named.unwrap_or(largest)
    })
}

/// What an evaluation costs at most for any value that a schema allows.
pub(crate) fn estimate(expression: &Expression, node: &Node) -> u64 {
    cost(expression, &|range| {
        let named = path(range).and_then(|(_, fields)| {
            let found = fields.iter().try_fold(node, |node, name| node.properties.get(*name))?;
            Some(found.bounds.items.max.or(found.bounds.properties.max).unwrap_or(MOST_ELEMENTS))
        });
        // Of what is made on the way nothing is known; the evaluation itself is bounded.
        named.unwrap_or(1)
    })
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.len() as u64,
        Value::Object(fields) => fields.len() as u64,
        _ => 1,
    }
}

/// The size of the largest list or map within a value.
fn largest(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.iter().map(largest).max().unwrap_or(0).max(size(value)),
        Value::Object(fields) => fields.values().map(largest).max().unwrap_or(0).max(size(value)),
        _ => 1,
    }
}

/// `self.a.b` as a root and fields.
fn path(expression: &Expression) -> Option<(&str, Vec<&str>)> {
    match &expression.expr {
        Expr::Ident(name) if matches!(name.as_str(), "self" | "oldSelf") => Some((name, Vec::new())),
        Expr::Select(select) => {
            let (root, mut fields) = path(&select.operand)?;
            fields.push(&select.field);
            Some((root, fields))
        }
        _ => None,
    }
}

fn cost(expression: &Expression, count: &dyn Fn(&Expression) -> u64) -> u64 {
    let all = |list: &mut dyn Iterator<Item = &Expression>| {
        list.map(|part| cost(part, count)).fold(1u64, u64::saturating_add)
    };
    match &expression.expr {
        Expr::Call(call) => {
            let own = all(&mut call.target.iter().map(|target| &**target).chain(&call.args));
            // `x in list` and functions of lists look at each element.
            let walked =
                call.target.iter().map(|target| &**target).chain(&call.args).filter(|part| path(part).is_some());
            walked.map(count).fold(own, |sum, size| sum.saturating_add(size.min(MOST_ELEMENTS) / 10))
        }
        Expr::Comprehension(all_of) => {
            let turns = match &all_of.iter_range.expr {
                Expr::List(list) => list.elements.len() as u64,
                _ => count(&all_of.iter_range),
            };
            let turn = cost(&all_of.loop_cond, count).saturating_add(cost(&all_of.loop_step, count));
            let rest = all(&mut [&all_of.iter_range, &all_of.accu_init, &all_of.result].into_iter());
            turns.saturating_mul(turn).saturating_add(rest)
        }
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Select(select) => cost(&select.operand, count).saturating_add(1),
        Expr::Map(map) => all(&mut map.entries.iter().flat_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(field) => vec![&field.value],
        })),
        _ => 1,
    }
}
