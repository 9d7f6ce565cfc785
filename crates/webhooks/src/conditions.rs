//! `matchConditions`: expressions in CEL about a request.
//!
//! Invariant: an expression is compiled once, and what an evaluation may cost is known before it begins.

use cel::common::value::Val;
use cel::parser::Expression;
use cel::{Context, Value as Outcome};
use kedge_expressions::{
    CALL_LIMIT, Type, admission_scope, compile_checked, environment, error_text, largest, of_json, reckon,
};
use serde_json::Value;

/// Upstream's bound of all conditions of a webhook.
const BUDGET: u64 = CALL_LIMIT / 4;

/// The conditions of a webhook.
#[derive(Debug)]
pub struct Conditions {
    list: Vec<Result<Expression, String>>,
    ignores_failure: bool,
}

/// What conditions say of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The webhook is asked.
    Yes,
    /// It is not.
    No,
    /// Nobody knows, and the request must not go on; why.
    Failed(String),
}

/// Who may do what, as expressions ask: `authorizer`, and `authorizer.requestResource`.
pub type Authorizers = (Box<dyn Val>, Box<dyn Val>);

/// What conditions look at.
#[derive(Clone, Copy)]
pub struct Looked<'a> {
    /// The object, where there is one.
    pub object: Option<&'a Value>,
    /// What it was before.
    pub old: Option<&'a Value>,
    /// The request, as the webhook would see it.
    pub request: &'a Value,
}

fn expression(source: &str) -> Result<Expression, String> {
    let (program, own) = compile_checked(source, &admission_scope(&Type::Dyn, None, true))?;
    match own {
        Type::Bool => Ok(program.expression().clone()),
        other => Err(format!("must evaluate to bool but got {}", other.declared())),
    }
}

/// What is wrong with an expression, if anything.
pub fn check_expression(source: &str) -> Result<(), String> {
    expression(source).map(|_| ())
}

impl Conditions {
    /// Out of `matchConditions`.
    pub(crate) fn read(conditions: &Value, ignores_failure: bool) -> Self {
        let list = conditions.as_array().into_iter().flatten();
        let read = |condition: &Value| expression(condition["expression"].as_str().unwrap_or_default().trim());
        Self { list: list.map(read).collect(), ignores_failure }
    }

    /// Whether nothing has to hold.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them asks who may do what.
    pub fn ask_authorizer(&self) -> bool {
        self.list.iter().flatten().any(|expression| expression.references().has_variable("authorizer"))
    }

    /// Asks all of them about a request.
    pub fn evaluate(&self, looked: Looked<'_>, authorizers: Option<Authorizers>) -> Match {
        let null = Value::Null;
        let roots = [
            ("object", looked.object.unwrap_or(&null)),
            ("oldObject", looked.old.unwrap_or(&null)),
            ("request", looked.request),
            ("namespaceObject", &null),
        ];
        let mut context = Context::with_env(environment());
        for (name, value) in roots {
            context.add_variable_as_val(name, of_json(value));
        }
        if let Some((authorizer, own)) = authorizers {
            context.add_variable_as_val("authorizer", authorizer);
            context.add_variable_as_val("authorizer.requestResource", own);
        }
        let variable = |name: &str| roots.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        let largest = roots.iter().map(|(_, value)| largest(value)).max().unwrap_or(1);
        let (mut failures, mut left) = (Vec::new(), BUDGET);
        for expression in &self.list {
            let expression = match expression {
                Ok(expression) => expression,
                Err(error) => {
                    failures.push(error.clone());
                    continue;
                }
            };
            let cost = reckon(expression, &variable, largest);
            if cost > left {
                failures.push("match conditions: running out of cost budget".to_owned());
                break;
            }
            left -= cost;
            match kedge_expressions::evaluate(expression, &context) {
                Ok(Outcome::Bool(true)) => {}
                // One that does not hold decides, whatever went wrong with the others.
                Ok(Outcome::Bool(false)) => return Match::No,
                Ok(_) => failures.push("cel expression evaluated to no bool".to_owned()),
                Err(error) => failures.push(error_text(&error)),
            }
        }
        match (failures.as_slice(), self.ignores_failure) {
            ([], _) => Match::Yes,
            (_, true) => Match::No,
            ([one], false) => Match::Failed(one.clone()),
            (several, false) => Match::Failed(format!("[{}]", several.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(expressions: &[&str], ignores: bool, expected: Match) {
        let list: Vec<Value> = expressions.iter().map(|text| json!({"name": "a", "expression": text})).collect();
        let object = json!({"metadata": {"name": "skip-me"}, "spec": {"replicas": 3}});
        let request = json!({"operation": "CREATE", "namespace": ""});
        let looked = Looked { object: Some(&object), old: None, request: &request };
        let found = Conditions::read(&Value::from(list), ignores).evaluate(looked, None);
        assert_eq!(found, expected, "{expressions:?}");
    }

    #[test]
    fn conditions_decide() {
        check(&[], false, Match::Yes);
        check(&["object.metadata.name != 'skip-me'"], false, Match::No);
        check(&["object.spec.replicas > 2", "request.operation == 'CREATE'", "oldObject == null"], false, Match::Yes);
        check(&["has(object.metadata.labels)"], false, Match::No);
        check(&["object.metadata.nothing == 'x'"], true, Match::No);
        check(&["object.metadata.nothing == 'x'", "false"], false, Match::No);
        check(&["object.metadata.nothing == 'x'"], false, Match::Failed("no such key: nothing".to_owned()));
    }

    #[test]
    fn expressions_are_checked() {
        assert_eq!(check_expression("object.metadata.name == 'a'"), Ok(()));
        assert!(check_expression("... [}").unwrap_err().contains("compilation failed"));
        assert!(check_expression("nobody == 1").unwrap_err().contains("undeclared reference to 'nobody'"));
    }
}
