//! Selectors of devices: which names they may use, what they have to come to, and how much they may cost.
//!
//! Not here: the values of a device, which whoever evaluates brings. Invariant: what passes costs no more than upstream lets
//! one evaluation cost, however a device looks.

use std::fmt;

use cel::Program;
use cel::common::ast::Expr;
use cel::parser::Expression;

use crate::check::{Scope, Type};
use crate::cost::{CALL_LIMIT, cost, path};
use crate::environment::compile_checked;

/// Upstream's bound of the attributes and capacities of a device, together.
const MOST_FACTS: u64 = 32;

/// The longest text that an attribute may be.
const LONGEST_VALUE: u64 = 64;

/// The longest name of a driver.
const LONGEST_DRIVER: u64 = 63;

/// Why an expression selects no devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorError {
    /// It means nothing, or is neither true nor false; upstream's text.
    Invalid(String),
    /// It may cost more than one evaluation may.
    TooCostly,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::TooCostly => f.write_str("too complex, exceeds cost limit"),
        }
    }
}

/// Compiles a selector of devices.
pub fn compile_selector(source: &str) -> Result<Program, SelectorError> {
    let (program, own) = compile_checked(source, &device_scope()).map_err(SelectorError::Invalid)?;
    if !matches!(own, Type::Bool | Type::Dyn) {
        let why = format!("must evaluate to bool or the unknown type, not {}", own.declared());
        return Err(SelectorError::Invalid(why));
    }
    // DIVERGES: upstream also counts what an evaluation does; here is reckoned what it may do at most.
    match cost(program.expression(), &size, LONGEST_VALUE) > CALL_LIMIT {
        true => Err(SelectorError::TooCostly),
        false => Ok(program),
    }
}

/// `device`, and nothing else.
fn device_scope() -> Scope {
    let by_domain = |values| Type::map(Type::map(values));
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_domain(Type::Dyn)),
            ("capacity", by_domain(Type::opaque("kubernetes.Quantity"))),
        ],
    );
    Scope::new([("device", device)])
}

/// How large a part of a device is at most.
fn size(expression: &Expression) -> Option<u64> {
    if let Some(("device", fields)) = path(expression) {
        return match fields.as_slice() {
            ["driver"] => Some(LONGEST_DRIVER),
            ["allowMultipleAllocations"] => Some(1),
            ["attributes" | "capacity"] | ["attributes" | "capacity", _] => Some(MOST_FACTS),
            ["attributes", _, _] => Some(LONGEST_VALUE),
            _ => None,
        };
    }
    match &expression.expr {
        // One domain of many, or one value of a domain.
        Expr::Call(call) if call.func_name == "_[_]" => match size(call.args.first()?)? {
            MOST_FACTS => Some(MOST_FACTS),
            _ => None,
        },
        Expr::Select(select) if !select.test && size(&select.operand) == Some(MOST_FACTS) => Some(LONGEST_VALUE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_about_devices() {
        let check = |source: &str, expected: &str| {
            let said = compile_selector(source).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{source}: {said}");
        };
        for source in [
            "true",
            r#"device.driver == "dra.example.com""#,
            r#"device.attributes["dra.example.com"].name"#,
            r#"device.attributes["dra.example.com"]["name"]"#,
            r#"cel.bind(dra, device.attributes["dra.example.com"], dra.name)"#,
            r#"device.attributes["dra.example.com"].name > 0"#,
            r#"device.attributes["dra.example.com"].name.isGreaterThan(semver("v0.0.1", true))"#,
            r#"device.capacity["dra.example.com"].name.isGreaterThan(quantity("1Ki"))"#,
            r#""name" in device.capacity["dra.example.com"]"#,
            r#"device.attributes.exists_one(x, x == "dra.example.com")"#,
            r#"device.attributes["dra.example.com"].services.split("example").size() >= 2"#,
            r#"device.attributes["dra.example.com"].services.matches("[^a]?sym")"#,
            "device.allowMultipleAllocations == true",
        ] {
            check(source, "");
        }
        check("?!", "compilation failed: ERROR: <input>:1:1: Syntax error");
        check("1", "must evaluate to bool or the unknown type, not int");
        check("device.capacity['a'].b", "must evaluate to bool or the unknown type, not kubernetes.Quantity");
        check("device.noSuchField == 1", "undefined field 'noSuchField'");
        check("claim.x", "undeclared reference to 'claim'");
        check("device.driver > 1", "no matching overload for '_>_' applied to '(string, int)'");
        check(r#"device.attributes["a"].name.includes("fish")"#, "undeclared reference to 'includes'");
        let loops = |depth: usize| {
            let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
            (0..depth).fold("1 < 100".to_owned(), |inner, at| format!("{ten}.all(x{at}, {inner})"))
        };
        check(&loops(3), "");
        check(&loops(7), "too complex, exceeds cost limit");
        let all = |depth: usize| {
            (0..depth).fold("true".to_owned(), |inner, at| format!("device.attributes.all(x{at}, {inner})"))
        };
        check(&all(2), "");
        check(&all(5), "too complex, exceeds cost limit");
    }
}
