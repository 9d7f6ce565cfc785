//! `matchConditions`: expressions in CEL about a request.
//!
//! The only place of this crate that knows the language. Invariant: an expression is compiled once.
// DIVERGES: the authorizer is declared and can't be asked; an expression that does fails as one that goes wrong.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
use cel::{Context, Env, Program, Value as Outcome, extensions};
use serde_json::Value;

/// How long an expression may be, in bytes.
const LONGEST: usize = 16 * 1024;

/// What expressions may speak of.
const VARIABLES: [&str; 5] = ["object", "oldObject", "request", "authorizer", "namespaceObject"];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    extensions::strings(&mut environment).expect("the string functions are declared once");
    extensions::lists(&mut environment).expect("the list functions are declared once");
    Arc::new(environment)
});

/// The conditions of a webhook.
#[derive(Debug)]
pub struct Conditions {
    list: Vec<Result<Program, String>>,
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

fn compile(expression: &str) -> Result<Program, String> {
    if expression.len() > LONGEST {
        return Err(format!("compilation failed: must have at most {LONGEST} bytes"));
    }
    let program = ENVIRONMENT.compile(expression).map_err(|error| {
        let error = error.to_string();
        let sign = if error.contains("Syntax error") { "" } else { "Syntax error: " };
        format!("compilation failed: ERROR: {sign}{}", error.trim())
    })?;
    let unknown =
        program.references().variables().into_iter().find(|name| !VARIABLES.contains(name)).map(str::to_owned);
    match unknown {
        Some(name) => Err(format!("compilation failed: ERROR: undeclared reference to '{name}' (in container '')")),
        None => Ok(program),
    }
}

/// What is wrong with an expression, if anything.
pub fn check_expression(expression: &str) -> Result<(), String> {
    compile(expression).map(|_| ())
}

/// JSON as CEL sees it.
pub fn variable(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(yes) => Box::new(CelBool::from(*yes)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Box::new(CelInt::from(number)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(list) => Box::new(CelList::from(list.iter().map(variable).collect::<Vec<Box<dyn Val>>>())),
        Value::Object(fields) => {
            let key = |name: &String| CelMapKey::String(CelString::from(name.clone()));
            let entries: HashMap<CelMapKey<'static>, Box<dyn Val>> =
                fields.iter().map(|(name, value)| (key(name), variable(value))).collect();
            Box::new(CelMap::from(entries))
        }
    }
}

impl Conditions {
    /// Out of `matchConditions`.
    pub(crate) fn read(conditions: &Value, ignores_failure: bool) -> Self {
        let list = conditions.as_array().into_iter().flatten();
        let expression = |condition: &Value| compile(condition["expression"].as_str().unwrap_or_default().trim());
        Self { list: list.map(expression).collect(), ignores_failure }
    }

    /// Whether nothing has to hold.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Asks all of them about a request.
    pub fn evaluate(&self, object: Option<&Value>, old: Option<&Value>, request: &Value) -> Match {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let null = Value::Null;
        context.add_variable_as_val("object", variable(object.unwrap_or(&null)));
        context.add_variable_as_val("oldObject", variable(old.unwrap_or(&null)));
        context.add_variable_as_val("request", variable(request));
        context.add_variable_as_val("namespaceObject", variable(&null));
        let mut failures = Vec::new();
        for program in &self.list {
            match program.as_ref().map(|program| program.execute(&context)) {
                Ok(Ok(Outcome::Bool(true))) => {}
                // One that does not hold decides, whatever went wrong with the others.
                Ok(Ok(Outcome::Bool(false))) => return Match::No,
                Ok(Ok(_)) => failures.push("cel expression evaluated to no bool".to_owned()),
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(error) => failures.push(error.clone()),
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
        let found = Conditions::read(&Value::from(list), ignores).evaluate(Some(&object), None, &request);
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
        check(&["object.metadata.nothing == 'x'"], false, Match::Failed("No such key: nothing".to_owned()));
    }

    #[test]
    fn expressions_are_checked() {
        assert_eq!(check_expression("object.metadata.name == 'a'"), Ok(()));
        assert!(check_expression("... [}").unwrap_err().contains("compilation failed"));
        assert!(check_expression("nobody == 1").unwrap_err().contains("undeclared reference to 'nobody'"));
    }
}
