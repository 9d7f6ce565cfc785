//! What an evaluation may cost at most, reckoned from the sizes of what it looks at.
//!
//! Reckoned before it begins, since an evaluation cannot be stopped. Invariant: a loop costs its turns, a function that
//! looks at all of its arguments their sizes, one that compares them with each other the product.

use cel::common::ast::{Expr, LiteralValue};
use cel::parser::Expression;
use serde_json::Value;

use crate::two_variables::PAIRS;
use crate::walk::entry_parts;

/// Upstream's bound of one evaluation.
pub const CALL_LIMIT: u64 = 1_000_000;

/// How many elements a list or map may have of which nothing says a bound: what fits into a request.
pub const MOST_ELEMENTS: u64 = 1 << 20;

/// What upstream counts for a question to the authorizer.
const QUESTION: u64 = 350_000;

/// Functions that look at each element of a list.
const WALKS: [&str; 8] = ["isSorted", "sum", "min", "max", "sort", "distinct", "flatten", "reverse"];

/// Functions that compare each part of one argument with each of the other.
const PRODUCTS: [&str; 9] = [
    "contains",
    "equivalent",
    "find",
    "findAll",
    "intersects",
    "matches",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
];

/// What an evaluation costs at most, where the variables have these values.
pub fn reckon<'a>(expression: &Expression, variable: &dyn Fn(&str) -> Option<&'a Value>, largest: u64) -> u64 {
    let count = |expression: &Expression| {
        let (root, fields) = path(expression)?;
        fields.iter().try_fold(variable(root)?, |value, name| value.get(*name)).map(size)
    };
    cost(expression, &count, largest)
}

/// The size of the largest list or map within a value.
pub fn largest(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.iter().map(largest).max().unwrap_or(0).max(size(value)),
        Value::Object(fields) => fields.values().map(largest).max().unwrap_or(0).max(size(value)),
        _ => 1,
    }
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.len() as u64,
        Value::Object(fields) => fields.len() as u64,
        Value::String(text) => text.len() as u64,
        _ => 1,
    }
}

/// `self.a.b` as a variable and fields.
pub fn path(expression: &Expression) -> Option<(&str, Vec<&str>)> {
    match &expression.expr {
        Expr::Ident(name) => Some((name, Vec::new())),
        // Whether a field is there is no field.
        Expr::Select(select) if !select.test => {
            let (root, mut fields) = path(&select.operand)?;
            fields.push(&select.field);
            Some((root, fields))
        }
        _ => None,
    }
}

/// What an evaluation costs at most: `count` knows sizes of some of what the expression names, and `unknown` stands for
/// the turns of loops over everything else.
pub fn cost(expression: &Expression, count: &dyn Fn(&Expression) -> Option<u64>, unknown: u64) -> u64 {
    let all = |list: &mut dyn Iterator<Item = &Expression>| {
        list.map(|part| cost(part, count, unknown)).fold(1u64, u64::saturating_add)
    };
    match &expression.expr {
        Expr::Call(call) => {
            let parts: Vec<&Expression> = call.target.iter().map(|target| &**target).chain(&call.args).collect();
            let sizes: Vec<Option<u64>> = parts.iter().map(|part| size_of(part, count)).collect();
            all(&mut parts.into_iter()).saturating_add(own_cost(&call.func_name, &sizes))
        }
        Expr::Comprehension(all_of) => {
            let range = match &all_of.iter_range.expr {
                Expr::Call(call) if call.func_name == PAIRS => &call.args[0],
                _ => &all_of.iter_range,
            };
            let turns = match &range.expr {
                Expr::List(list) => list.elements.len() as u64,
                _ => count(range).unwrap_or(unknown),
            };
            let one = |part| cost(part, count, unknown);
            let turn = one(&all_of.loop_cond).saturating_add(one(&all_of.loop_step));
            let rest = all(&mut [&all_of.iter_range, &all_of.accu_init, &all_of.result].into_iter());
            turns.saturating_mul(turn).saturating_add(rest)
        }
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Select(select) => cost(&select.operand, count, unknown).saturating_add(1),
        Expr::Map(map) => all(&mut map.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        Expr::Struct(of) => all(&mut of.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        _ => 1,
    }
}

/// The size of an argument, if it is known.
fn size_of(expression: &Expression, count: &dyn Fn(&Expression) -> Option<u64>) -> Option<u64> {
    match &expression.expr {
        Expr::List(list) => Some(list.elements.len() as u64),
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().len() as u64),
        _ => count(expression).map(|size| size.min(MOST_ELEMENTS)),
    }
}

/// Functions that look no further than the shorter of two values.
const SHORTER: [&str; 8] = ["_!=_", "_<=_", "_<_", "_==_", "_>=_", "_>_", "endsWith", "startsWith"];

fn own_cost(function: &str, sizes: &[Option<u64>]) -> u64 {
    if function == "@in" {
        return sizes.get(1).copied().flatten().unwrap_or(0);
    }
    let sizes: Vec<u64> = sizes.iter().copied().flatten().collect();
    let sum = || sizes.iter().copied().fold(0u64, u64::saturating_add);
    match function {
        "check" => QUESTION,
        // Upstream's prices of texts and patterns: a tenth of the one, a quarter of the other.
        "matches" | "find" | "findAll" => sizes
            .first()
            .map_or(0, |text| text.div_ceil(10))
            .saturating_mul(sizes.get(1).map_or(1, |it| it.div_ceil(4))),
        name if PRODUCTS.contains(&name) && sizes.len() > 1 => {
            sizes.iter().copied().fold(1u64, u64::saturating_mul).div_ceil(10)
        }
        name if SHORTER.contains(&name) => sizes.iter().copied().min().unwrap_or(0) / 10,
        name if WALKS.contains(&name) => sum(),
        _ => sum() / 10,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::environment::compile;

    #[test]
    fn work_has_a_price() {
        let object = json!({"list": vec![1; 100], "text": "x".repeat(1000), "more": vec![1; 50], "n": 1});
        let check = |source: &str, least: u64, most: u64| {
            let program = compile(source).unwrap();
            let own = reckon(program.expression(), &|name| (name == "object").then_some(&object), largest(&object));
            assert!((least..=most).contains(&own), "{source}: {own}");
        };
        check("object.n == 1", 1, 10);
        check("object.list.isSorted() && object.list.sum() > 1", 200, 220);
        check("object.list.all(x, x > 0)", 100, 1000);
        check("object.list.all(x, object.list.all(y, x == y))", 10_000, 100_000);
        check("sets.contains(object.list, object.more)", 500, 520);
        check("object.text.find('[a-z]+0123456789') == ''", 400, 600);
        check("object.text.matches('^[a-z]+$')", 200, 300);
        check("isURL(object.text) || isIP(object.text) || isCIDR(object.text)", 300, 320);
        check("format.dns1123Label().validate(object.text).hasValue()", 100, 120);
        check("isQuantity(object.text) && isSemver(object.text, true)", 200, 220);
        check("authorizer.path('/x').check('get').allowed()", 350_000, 350_020);
        check("object.text == 'a' || object.text.startsWith('b') || object.text in ['c', 'd']", 1, 20);
        check("object.text == object.text", 100, 110);
        check("has(object.text) && !has(object.list)", 1, 20);
        check("object.list.all(i, x, x > i)", 1000, 3000);
        check("object.list.map(x, x).all(x, x > 0)", 200, 2000);
    }
}
