//! Whether the expressions of admission policies mean anything: syntax, functions, types, the variables that there are.
//!
//! Of objects and parameters nothing is known here. The texts are upstream's.

use kedge_expressions::{Type, admission_scope, compile_checked, constructed};
use kedge_meta::FieldError;

use crate::path::Path;

/// What an expression may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) params: bool,
    pub(super) authorizer: bool,
    /// The policy's variables that stand before it, with their types; absent where there are none at all.
    pub(super) variables: Option<&'a [(String, Type)]>,
    /// Whether it may construct objects.
    pub(super) constructs: bool,
}

/// The type of an expression, or what is wrong with it.
pub(super) fn type_of(source: &str, given: Given<'_>) -> Result<Type, String> {
    let mut scope = admission_scope(&Type::Dyn, given.params.then_some(&Type::Dyn), given.authorizer);
    if let Some(variables) = given.variables {
        let fields = variables.iter().map(|(name, own)| (name.as_str(), own.clone()));
        scope.declare("variables", Type::object("kubernetes.variables", fields));
    }
    let (program, own) = compile_checked(source, &scope)?;
    match constructed(program.expression()) {
        Err(error) => Err(format!("compilation failed: ERROR: {error}")),
        Ok(expression) if !given.constructs && expression != *program.expression() => {
            Err("compilation failed: ERROR: undeclared reference to 'Object' (in container '')".to_owned())
        }
        Ok(_) => Ok(own),
    }
}

/// What is wrong with an expression that has to come to one of these types, if anything.
fn wrong(source: &str, given: Given<'_>, wanted: &[Type]) -> Option<String> {
    match type_of(source, given) {
        Err(error) => Some(error),
        Ok(own) if wanted.iter().any(|wanted| wanted.is(&own)) => None,
        Ok(own) => Some(match wanted {
            [wanted] => format!("must evaluate to {} but got {}", wanted.declared(), own.declared()),
            wanted => {
                let wanted: Vec<String> = wanted.iter().map(|wanted| wanted.declared().to_string()).collect();
                format!("must evaluate to one of [{}] but got {}", wanted.join(" "), own.declared())
            }
        }),
    }
}

/// Reports what is wrong with an expression that has to come to one of the types `wanted`.
pub(super) fn check(source: &str, given: Given<'_>, wanted: &[Type], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(why) = wrong(source, given, wanted) {
        path.invalid(errors, source, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_refer_to_what_is_given() {
        let variables = [("a".to_owned(), Type::Int), ("text".to_owned(), Type::String)];
        let all = Given { params: true, authorizer: true, variables: Some(&variables), constructs: false };
        let none = Given { params: false, authorizer: false, variables: None, constructs: false };
        let makes = Given { constructs: true, ..all };
        let check = |source: &str, given: Given<'_>, expected: &str| {
            let wanted = if given.constructs { Type::opaque("Object") } else { Type::Bool };
            let wrong = wrong(source, given, &[wanted]).unwrap_or_default();
            assert!(wrong.contains(expected) && wrong.is_empty() == expected.is_empty(), "{source}: {wrong}");
        };
        check("object.x == oldObject.x && request.operation == namespaceObject.metadata.name", none, "");
        check("params.x == variables.a && authorizer.path('/').check('get').allowed()", all, "");
        check("authorizer.requestResource.check('get').allowed()", all, "");
        let unknown = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')";
        check("params.x == 1", none, unknown);
        check("variables.b == 1", all, "<input>:1:10: undefined field 'b'");
        check("variables.text == 1", all, "no matching overload for '_==_' applied to '(string, int)'");
        check("request.kind.kind == 'Pod' && request.userInfo.groups[0] == 'a' && request.options.x == 1", none, "");
        check("request.Kind == 'Pod'", none, "undefined field 'Kind'");
        check("namespaceObject.metadata.creationTimestamp > 1", none, "'_>_' applied to '(timestamp, int)'");
        check("object.x", none, "must evaluate to bool but got dyn");
        check("object.x ==", all, "compilation failed: ERROR: <input>:1:12: Syntax error");
        check("object.x.lowerUnicode()", all, "undeclared reference to 'lowerUnicode'");
        check("Object{x: 1} == Object{x: 1}", all, "undeclared reference to 'Object'");
        check("object.x == 1 ? Object{x: 1} : Object{}", makes, "");
        check("Object{x: object.x + 1 > 'a'}", makes, "'_>_' applied to '(int, string)'");
        check("{'x': 1}", makes, "must evaluate to Object but got map(string, int)");
        check("Object{x: Object.y{}}", makes, "type mismatch");
    }
}
