//! Whether the expressions of admission policies mean anything: syntax, functions, the variables that there are.
//!
//! Types are not looked at. The texts are upstream's, but for where in an expression something is wrong.

use kedge_expressions::{compile, constructed, unknown_names, walk_selects};
use kedge_meta::FieldError;

use crate::path::Path;

/// What an expression may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) params: bool,
    pub(super) authorizer: bool,
    /// The policy's variables that stand before it; absent where there are none at all.
    pub(super) variables: Option<&'a [String]>,
    /// Whether it may construct objects.
    pub(super) constructs: bool,
}

/// What is wrong with an expression, if anything.
fn wrong(source: &str, given: Given<'_>) -> Option<String> {
    let program = match compile(source) {
        Ok(program) => program,
        Err(error) => return Some(error),
    };
    let mut names = vec!["object", "oldObject", "request", "namespaceObject"];
    names.extend(given.params.then_some("params"));
    names.extend(given.authorizer.then_some("authorizer"));
    names.extend(given.variables.map(|_| "variables"));
    let mut unknown = unknown_names(program.expression(), Some(&names));
    walk_selects(program.expression(), &mut |owner, field| {
        let is_known = |variables: &[String]| variables.iter().any(|name| name == field);
        if owner == "variables" && given.variables.is_some_and(|variables| !is_known(variables)) {
            unknown.push(format!("undefined field '{field}'"));
        }
    });
    match constructed(program.expression()) {
        Err(error) => unknown.push(error),
        Ok(expression) if !given.constructs && expression != *program.expression() => {
            unknown.push("undeclared reference to 'Object' (in container '')".to_owned());
        }
        Ok(_) => {}
    }
    (!unknown.is_empty()).then(|| format!("compilation failed: ERROR: {}", unknown.join("; ")))
}

/// Reports what is wrong with an expression.
pub(super) fn check(source: &str, given: Given<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(why) = wrong(source, given) {
        path.invalid(errors, source, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_refer_to_what_is_given() {
        let variables = ["a".to_owned()];
        let all = Given { params: true, authorizer: true, variables: Some(&variables), constructs: false };
        let none = Given { params: false, authorizer: false, variables: None, constructs: false };
        let check = |source: &str, given: Given<'_>, expected: &str| {
            let wrong = wrong(source, given).unwrap_or_default();
            assert!(wrong.contains(expected) && wrong.is_empty() == expected.is_empty(), "{source}: {wrong}");
        };
        check("object.x == oldObject.x && request.operation == namespaceObject.y", none, "");
        check("params.x == variables.a && authorizer.path('/').check('get').allowed()", all, "");
        check("authorizer.requestResource.check('get').allowed()", all, "");
        check("params.x == 1", none, "compilation failed: ERROR: undeclared reference to 'params' (in container '')");
        check("variables.b == 1", all, "undefined field 'b'");
        check("object.x ==", all, "compilation failed: ERROR: ");
        check("object.x.lowerUnicode()", all, "undeclared reference to 'lowerUnicode'");
        check("Object{x: 1}", all, "undeclared reference to 'Object'");
        check("Object{x: 1}", Given { constructs: true, ..all }, "");
        check("Object{x: Object.y{}}", Given { constructs: true, ..all }, "type mismatch");
    }
}
