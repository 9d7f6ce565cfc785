//! The way through an expression and everything within it.

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;

/// Shows an expression and everything within it.
pub(crate) fn walk(expression: &Expression, visit: &mut dyn FnMut(&Expression)) {
    let mut left = vec![expression];
    while let Some(part) = left.pop() {
        visit(part);
        left.extend(parts(part).into_iter().rev());
    }
}

/// Whether parts of an expression lie that deep in each other: each level takes room on the stack wherever it is read.
pub(crate) fn is_deeper_than(expression: &Expression, most: usize) -> bool {
    let mut left = vec![(expression, 1)];
    while let Some((part, depth)) = left.pop() {
        if depth > most {
            return true;
        }
        left.extend(parts(part).into_iter().map(|part| (part, depth + 1)));
    }
    false
}

/// What an expression is made of, in its order.
fn parts(expression: &Expression) -> Vec<&Expression> {
    match &expression.expr {
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(all) => {
            vec![&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        _ => Vec::new(),
    }
}

/// Shows each `name.field` within an expression.
pub fn walk_selects(expression: &Expression, visit: &mut dyn FnMut(&str, &str)) {
    walk(expression, &mut |part| {
        if let Expr::Select(select) = &part.expr
            && let Expr::Ident(name) = &select.operand.expr
        {
            visit(name, &select.field);
        }
    });
}

/// The expressions of an entry of a map or an object.
pub(crate) fn entry_parts(entry: &EntryExpr) -> Vec<&Expression> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}
