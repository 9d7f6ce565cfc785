//! Names in rules that mean nothing: fields that a schema does not have, functions that there are not.
//!
//! Not a type checker: what the type of something is not known of is passed over.

use std::collections::HashMap;

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;

use super::values::escaped;
use crate::node::{Additional, Node};

/// What the names of an expression over a value of `node` refer to that is not there, one text for each.
pub(crate) fn unknown_names(expression: &Expression, node: &Node) -> Vec<String> {
    let mut found = kedge_expressions::unknown_names(expression, Some(&["self", "oldSelf"]));
    let known = HashMap::from([("self".to_owned(), node), ("oldSelf".to_owned(), node)]);
    visit(expression, &known, &mut found);
    found.sort();
    found.dedup();
    found
}

type Known<'a> = HashMap<String, &'a Node>;

/// Visits an expression; its type, if that is known.
fn visit<'a>(expression: &Expression, known: &Known<'a>, found: &mut Vec<String>) -> Option<&'a Node> {
    match &expression.expr {
        Expr::Ident(name) => return known.get(name).copied(),
        Expr::Select(select) => {
            let owner = visit(&select.operand, known, found)?;
            return field(owner, &select.field, found);
        }
        Expr::Call(call) => {
            if let Some(target) = &call.target {
                visit(target, known, found);
            }
            let args: Vec<Option<&Node>> = call.args.iter().map(|arg| visit(arg, known, found)).collect();
            // An index into a list or map gives its items.
            if call.func_name == "_[_]" {
                return args.first().copied().flatten().and_then(element);
            }
        }
        Expr::Comprehension(all) => {
            let range = visit(&all.iter_range, known, found);
            let mut inner = known.clone();
            inner.remove(&all.accu_var);
            match range.filter(|range| range.kind == "array").and_then(element) {
                Some(items) => inner.insert(all.iter_var.clone(), items),
                None => inner.remove(&all.iter_var),
            };
            if let Some(second) = &all.iter_var2 {
                inner.remove(second);
                inner.remove(&all.iter_var);
            }
            for part in [&all.accu_init, &all.loop_cond, &all.loop_step, &all.result] {
                visit(part, &inner, found);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|part| {
            visit(part, known, found);
        }),
        Expr::Map(map) => map.entries.iter().for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                visit(&entry.key, known, found);
                visit(&entry.value, known, found);
            }
            EntryExpr::StructField(field) => {
                visit(&field.value, known, found);
            }
        }),
        _ => {}
    }
    None
}

fn element(node: &Node) -> Option<&Node> {
    match (&node.items, &node.additional) {
        (Some(items), _) => Some(items),
        (None, Additional::Schema(values)) => Some(values),
        _ => None,
    }
}

fn field<'a>(owner: &'a Node, name: &str, found: &mut Vec<String>) -> Option<&'a Node> {
    if let Some((_, property)) = owner.properties.iter().find(|(own, _)| escaped(own) == name) {
        return Some(property);
    }
    if let Additional::Schema(values) = &owner.additional {
        return Some(values);
    }
    let meta = owner.is_object_root && matches!(name, "apiVersion" | "kind" | "metadata");
    let is_free = owner.kind.is_empty() || matches!(owner.additional, Additional::Any(true));
    if !meta && !is_free {
        found.push(format!("undefined field '{name}'"));
    }
    None
}
