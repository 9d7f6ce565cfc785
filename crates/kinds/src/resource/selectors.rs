//! Selectors of devices in classes and claims: expressions in CEL.

use kedge_expressions::{SelectorError, compile_selector};
use kedge_meta::FieldError;
use serde_json::Value;

use super::names::each;
use crate::path::Path;
use crate::value::{at, text};

const MOST: usize = 32;
const LONGEST: usize = 10 * 1024;

/// What is wrong with selectors of devices. Those that are the same in `old` were taken once and may stay.
pub(super) fn selectors(object: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let are_known = old.is_some_and(|old| at(old, &["selectors"]) == at(object, &["selectors"]));
    each(object, "selectors", path, MOST, errors, |selector, path, errors| {
        let path = path.child("cel");
        match at(selector, &["cel"]) {
            None => path.required(errors, ""),
            Some(_) if are_known => {}
            Some(cel) => expression(text(cel, &["expression"]), &path.child("expression"), errors),
        }
    });
}

fn expression(source: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if source.len() > LONGEST {
        return path.too_long(errors, LONGEST);
    }
    match compile_selector(source) {
        Ok(_) => {}
        Err(SelectorError::Invalid(why)) => path.invalid(errors, source, &why),
        Err(error @ SelectorError::TooCostly) => path.forbidden(errors, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::SPEC;
    use serde_json::json;

    #[test]
    fn expressions_are_compiled_when_they_are_new() {
        let check = |source: &str, old: Option<&str>, expected: &str| {
            let of = |source: &str| json!({"selectors": [{"cel": {"expression": source}}]});
            let mut errors = Vec::new();
            selectors(&of(source), old.map(of).as_ref(), &SPEC, &mut errors);
            let said = errors.iter().map(ToString::to_string).collect::<String>();
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{source}: {said}");
        };
        check("device.driver == 'd.io'", None, "");
        let unknown = "spec.selectors[0].cel.expression: Invalid value: \"x\": compilation failed: ERROR: <input>:1:1: \
                       undeclared reference to 'x' (in container '')";
        check("x", None, unknown);
        check("x", Some("y"), unknown);
        check("x", Some("x"), "");
        let long = format!("'{}' == ''", "x".repeat(LONGEST));
        check(&long, None, "spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes");
        let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let costly = (0..7).fold("true".to_owned(), |inner, at| format!("{ten}.all(x{at}, {inner})"));
        check(&costly, None, "spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit");
    }
}
