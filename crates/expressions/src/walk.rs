//! The way through an expression and everything within it.

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;

/// Shows an expression and everything within it.
pub(crate) fn walk(expression: &Expression, visit: &mut dyn FnMut(&Expression)) {
    visit(expression);
    let mut parts = |list: &mut dyn Iterator<Item = &Expression>| list.for_each(|part| walk(part, visit));
    match &expression.expr {
        Expr::Select(select) => parts(&mut std::iter::once(&*select.operand)),
        Expr::Call(call) => parts(&mut call.target.iter().map(|target| &**target).chain(&call.args)),
        Expr::Comprehension(all) => {
            let all = [&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result];
            parts(&mut all.into_iter());
        }
        Expr::List(list) => parts(&mut list.elements.iter()),
        Expr::Map(map) => parts(&mut map.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        Expr::Struct(of) => parts(&mut of.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        _ => {}
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
