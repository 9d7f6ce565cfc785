//! Expressions of a policy, compiled once; what they refer to.

use cel::parser::Expression;
use kedge_expressions::{compile, constructed, walk_selects};

/// An expression of a policy.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) source: String,
    /// Or why it means nothing.
    pub(super) expression: Result<Expression, String>,
    /// The variables of the policy that it may need.
    pub(super) needs: Vec<String>,
}

impl Compiled {
    /// Compiles an expression.
    pub(super) fn new(source: &str) -> Self {
        let expression = compile(source).map(|program| program.expression().clone());
        let needs = expression.as_ref().map(variables_of).unwrap_or_default();
        Self { source: source.to_owned(), expression, needs }
    }

    /// The same, where there is something to compile.
    pub(super) fn some(source: &str) -> Option<Self> {
        (!source.trim().is_empty()).then(|| Self::new(source))
    }

    /// An expression that may construct objects.
    pub(super) fn constructing(source: &str) -> Self {
        let plain = Self::new(source);
        let expression = plain.expression.and_then(|expression| constructed(&expression));
        Self { expression, ..plain }
    }

    /// Whether it looks at a variable of the request.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.expression.as_ref().is_ok_and(|expression| expression.references().has_variable(variable))
    }
}

/// The names behind `variables.`.
fn variables_of(expression: &Expression) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    walk_selects(expression, &mut |owner, field| {
        if owner == "variables" && !found.iter().any(|known| known == field) {
            found.push(field.to_owned());
        }
    });
    found
}
