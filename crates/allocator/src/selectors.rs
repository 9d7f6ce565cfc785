//! Selectors of devices: CEL expressions about `device`.
//!
//! Invariant: compiling and evaluating are bounded: the length of an expression, what it may cost, the number of compiled
//! ones that are kept.

mod device;

use std::collections::HashMap;
use std::sync::Arc;

use cel::{Context, Program, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceSelector};
use kedge_expressions::error_text;
use parking_lot::Mutex;

use crate::allocate::AllocateError;

/// Upstream's bound of an expression's length.
const LONGEST: usize = 10 * 1024;
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
        let compiled = kedge_expressions::compile_selector(expression);
        compiled.map(Arc::new).map_err(|error| CompileError(error.to_string()))
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

#[cfg(test)]
mod tests;
