//! What expressions of a policy are evaluated in: the request's objects, the policy's variables, and a budget.
//!
//! Variables are evaluated when an expression that needs them is, once for each scope. Invariant: no expression costs more
//! than upstream allows for one, and all of them together no more than for a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use cel::common::traits::Indexer;
use cel::common::types::{self, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Context, ExecutionError, Value as Outcome};
use kedge_expressions::{CALL_LIMIT, environment, error_text, evaluate, largest, of_json, reckon, with_room};
use serde_json::Value;

use super::compiled::Compiled;

/// Upstream's bound of all evaluations of a policy.
pub(super) const BUDGET: u64 = 10_000_000;
/// Upstream's bound of a policy's match conditions.
pub(super) const CONDITIONS_BUDGET: u64 = CALL_LIMIT / 4;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

type Cell = OnceLock<Result<Box<dyn Val>, ExecutionError>>;

/// The value of `variables`.
#[derive(Debug, Clone)]
struct VariablesVal(Arc<BTreeMap<String, Cell>>);

impl Val for VariablesVal {
    fn get_type(&self) -> &Type {
        &types::MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &types::MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for VariablesVal {}

impl Indexer for VariablesVal {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key.downcast_ref::<CelString<'_>>().map(CelString::inner).unwrap_or_default();
        match self.0.get(name).and_then(OnceLock::get) {
            Some(Ok(value)) => Ok(CowVal::Owned(value.clone_as_boxed())),
            Some(Err(error)) => Err(error.clone()),
            None => Err(ExecutionError::no_such_key(name)),
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

/// What is known when a policy is evaluated.
#[derive(Clone)]
pub(super) struct Inputs<'a> {
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
    pub(super) request: &'a Value,
    pub(super) namespace: &'a Value,
    /// Absent where the policy has no parameters.
    pub(super) params: Option<&'a Value>,
    /// `authorizer` and `authorizer.requestResource`, where an expression asks.
    pub(super) authorizer: Option<(Box<dyn Val>, Box<dyn Val>)>,
}

impl<'a> Inputs<'a> {
    /// The same about another object.
    pub(super) fn about<'b>(&self, object: &'b Value) -> Inputs<'b>
    where
        'a: 'b,
    {
        Inputs { object, ..self.clone() }
    }
}

/// A place to evaluate expressions in.
pub(super) struct Scope<'a> {
    context: Context<'static, 'static>,
    roots: [(&'static str, &'a Value); 5],
    largest: u64,
    policy_variables: &'a [(String, Compiled)],
    values: Arc<BTreeMap<String, Cell>>,
    budget: u64,
}

/// Why an evaluation gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The expression failed; upstream's sentence.
    Expression(String),
    /// Nothing more is evaluated.
    Budget(String),
}

impl Failure {
    pub(super) fn into_text(self) -> String {
        let (Self::Expression(text) | Self::Budget(text)) = self;
        text
    }
}

impl<'a> Scope<'a> {
    /// With the variables of the policy that may be asked for.
    pub(super) fn new(inputs: &Inputs<'a>, policy_variables: &'a [(String, Compiled)], budget: u64) -> Self {
        let mut context = Context::with_env(environment());
        let params = inputs.params.unwrap_or(&Value::Null);
        let roots = [
            ("object", inputs.object),
            ("oldObject", inputs.old),
            ("request", inputs.request),
            ("namespaceObject", inputs.namespace),
            ("params", params),
        ];
        for (name, value) in roots {
            context.add_variable_as_val(name, of_json(value));
        }
        if let Some((authorizer, own)) = &inputs.authorizer {
            context.add_variable_as_val("authorizer", authorizer.clone());
            context.add_variable_as_val("authorizer.requestResource", own.clone());
        }
        let values: BTreeMap<_, _> = policy_variables.iter().map(|(name, _)| (name.clone(), Cell::new())).collect();
        let values = Arc::new(values);
        context.add_variable_as_val("variables", Box::new(VariablesVal(Arc::clone(&values))));
        let largest = roots.iter().map(|(_, value)| largest(value)).max().unwrap_or(1);
        Self { context, roots, largest, policy_variables, values, budget }
    }

    /// Evaluates an expression.
    pub(super) fn evaluate(&mut self, expression: &Compiled) -> Result<Outcome, Failure> {
        let compiled = match &expression.expression {
            Ok(compiled) => compiled,
            Err(error) => return Err(Failure::Expression(error.clone())),
        };
        self.prepare(&expression.needs)?;
        self.spend(expression)?;
        evaluate(compiled, &self.context).map_err(|error| Failure::Expression(said(expression, &error)))
    }

    /// Evaluates the variables that something needs; each may need those before it.
    fn prepare(&mut self, names: &[String]) -> Result<(), Failure> {
        let known = self.policy_variables;
        let place = |before: usize, name: &String| known[..before].iter().position(|(own, _)| own == name);
        // One variable may need the one before it, and so on over all of them: no recursion.
        let mut wanted: BTreeSet<usize> = names.iter().filter_map(|name| place(known.len(), name)).collect();
        let mut left: Vec<usize> = wanted.iter().copied().collect();
        while let Some(index) = left.pop() {
            let needs = known[index].1.needs.iter().filter_map(|name| place(index, name));
            left.extend(needs.filter(|earlier| wanted.insert(*earlier)));
        }
        for index in wanted {
            let (name, compiled) = &known[index];
            if self.values.get(name).is_some_and(|cell| cell.get().is_some()) {
                continue;
            }
            self.spend(compiled)?;
            let value = match &compiled.expression {
                Ok(expression) => {
                    with_room(expression, || Outcome::resolve_val(expression, &self.context).map(CowVal::into_owned))
                }
                Err(error) => Err(ExecutionError::function_error("variables", error)),
            };
            let value = value.map_err(|error| {
                let text = format!("composited variable {name:?} fails to evaluate: {}", error_text(&error));
                ExecutionError::function_error("variables", text)
            });
            if let Some(cell) = self.values.get(name) {
                cell.get_or_init(|| value);
            }
        }
        Ok(())
    }

    fn spend(&mut self, expression: &Compiled) -> Result<(), Failure> {
        let Ok(compiled) = &expression.expression else { return Ok(()) };
        let variable = |name: &str| self.roots.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        let cost = reckon(compiled, &variable, self.largest);
        if cost > self.budget {
            self.budget = 0;
            return Err(Failure::Budget(OUT_OF_BUDGET.to_owned()));
        }
        self.budget -= cost;
        if cost > CALL_LIMIT {
            let text = "operation cancelled: actual cost limit exceeded";
            return Err(Failure::Expression(format!("expression '{}' resulted in error: {text}", expression.source)));
        }
        Ok(())
    }
}

/// Upstream's sentence about an expression that failed.
fn said(expression: &Compiled, error: &ExecutionError) -> String {
    format!("expression '{}' resulted in error: {}", expression.source, error_text(error))
}
