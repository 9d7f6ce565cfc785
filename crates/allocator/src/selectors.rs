//! Selectors of devices: CEL expressions about `device`.
//!
//! Invariant: compiling and evaluating are bounded
//! (the length of an expression, how deep its loops lie in each other, the number of compiled ones kept).

mod device;

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;
use cel::{Context, Program, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceSelector};
use kedge_expressions::error_text;
use parking_lot::Mutex;

use crate::allocate::AllocateError;

/// Upstream's bound of an expression's length.
const LONGEST: usize = 10 * 1024;
/// Loops within loops.
// DIVERGES: upstream estimates the cost of an expression; here loops may not lie deeper in each other than this.
const DEEPEST: usize = 3;
/// Compiled expressions that are kept.
const MOST_KEPT: usize = 256;

/// An expression that can't be a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

/// Compiles selectors once and evaluates them.
#[derive(Default)]
pub struct Selectors {
    kept: Mutex<HashMap<String, Result<Arc<Program>, CompileError>>>,
}

impl std::fmt::Debug for Selectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selectors").field("kept", &self.kept.lock().len()).finish()
    }
}

impl Selectors {
    /// Whether a text can be a selector.
    pub fn check(&self, expression: &str) -> Result<(), CompileError> {
        self.compile(expression).map(|_| ())
    }

    fn compile(&self, expression: &str) -> Result<Arc<Program>, CompileError> {
        if let Some(known) = self.kept.lock().get(expression) {
            return known.clone();
        }
        let compiled = self.compile_new(expression);
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(expression.to_owned(), compiled.clone());
        compiled
    }

    fn compile_new(&self, expression: &str) -> Result<Arc<Program>, CompileError> {
        if expression.len() > LONGEST {
            return Err(CompileError(format!("too long: must have at most {LONGEST} bytes")));
        }
        let program = kedge_expressions::compile(expression).map_err(CompileError)?;
        if loop_depth(program.expression()) > DEEPEST {
            return Err(CompileError("too complex, exceeds cost limit".to_owned()));
        }
        Ok(Arc::new(program))
    }

    /// Whether a device is what all selectors of `owner` (a class or a claim) select.
    pub(crate) fn match_all(
        &self,
        selectors: &[DeviceSelector],
        driver: &str,
        device: &Device,
        owner: &str,
    ) -> Result<bool, AllocateError> {
        for (index, selector) in selectors.iter().enumerate() {
            let failed = |why: String| AllocateError::Unworkable(format!("{owner}: selector #{index}: {why}"));
            let expression = selector.cel.as_ref().map(|cel| cel.expression.as_str());
            let expression = expression.ok_or_else(|| failed("CEL expression empty".to_owned()))?;
            let program = self.compile(expression).map_err(|error| failed(format!("CEL compile error: {error}")))?;
            let matches = self.evaluate(&program, driver, device);
            if !matches.map_err(|why| failed(format!("CEL runtime error: {why}")))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn evaluate(&self, program: &Program, driver: &str, device: &Device) -> Result<bool, String> {
        let mut context = Context::with_env(kedge_expressions::environment());
        context.add_variable_as_val("device", Box::new(device::device(driver, device)?));
        match kedge_expressions::evaluate(program.expression(), &context) {
            Ok(Value::Bool(matches)) => Ok(matches),
            Ok(_) => Err("CEL result could not be converted to bool".to_owned()),
            Err(error) => Err(error_text(&error)),
        }
    }
}

/// How deep loops lie in each other.
fn loop_depth(expression: &Expression) -> usize {
    let deepest = |list: &mut dyn Iterator<Item = &Expression>| list.map(loop_depth).max().unwrap_or_default();
    match &expression.expr {
        Expr::Call(call) => deepest(&mut call.target.iter().map(|target| &**target).chain(&call.args)),
        Expr::Comprehension(all) => {
            let inner = [&all.loop_cond, &all.loop_step, &all.result, &all.accu_init];
            // A loop over nothing binds a name: it costs nothing.
            let own = usize::from(!matches!(&all.iter_range.expr, Expr::List(list) if list.elements.is_empty()));
            (own + deepest(&mut inner.into_iter())).max(loop_depth(&all.iter_range))
        }
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Select(select) => loop_depth(&select.operand),
        Expr::Map(map) => deepest(&mut map.entries.iter().flat_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(field) => vec![&field.value],
        })),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
