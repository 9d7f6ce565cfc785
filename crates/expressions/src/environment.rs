//! The one environment of all expressions, and how they are compiled.

use std::sync::{Arc, LazyLock};

use cel::{Env, ExecutionError, Program, extensions};

use crate::check::{Scope, Type, check, with_place};
use crate::{
    authorizer, binding, cidrs, duration, formats, formatting, ips, json_patch, lists, quantity, regexes, sets,
    timestamp, two_variables, urls, version,
};

/// How long an expression may be, in bytes.
const LONGEST: usize = 16 * 1024;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let libraries = [
        extensions::strings,
        extensions::lists,
        authorizer::declare,
        binding::declare,
        cidrs::declare,
        duration::declare,
        formats::declare,
        ips::declare,
        formatting::declare,
        json_patch::declare,
        lists::declare,
        quantity::declare,
        regexes::declare,
        sets::declare,
        timestamp::declare,
        two_variables::declare,
        urls::declare,
        version::declare,
    ];
    for declare in libraries {
        declare(&mut env).expect("each function is declared once");
    }
    Arc::new(env)
});

/// What expressions are evaluated in.
pub fn environment() -> Arc<Env> {
    Arc::clone(&ENVIRONMENT)
}

/// Compiles an expression; the error is upstream's text.
pub fn compile(source: &str) -> Result<Program, String> {
    if source.len() > LONGEST {
        return Err(format!("compilation failed: must have at most {LONGEST} bytes"));
    }
    ENVIRONMENT.compile(source).map_err(|errors| {
        let from_one = |number: isize| usize::try_from(number).unwrap_or_default().saturating_sub(1);
        let errors = errors.errors.iter().map(|error| {
            let sign = if error.msg.starts_with("Syntax error") { "" } else { "Syntax error: " };
            with_place(source, from_one(error.pos.0), from_one(error.pos.1), &format!("{sign}{}", error.msg))
        });
        format!("compilation failed: {}", errors.collect::<Vec<_>>().join("\n"))
    })
}

/// Compiles an expression over these names and finds its type; the error is upstream's text.
pub fn compile_checked(source: &str, scope: &Scope) -> Result<(Program, Type), String> {
    let program = compile(source)?;
    let own = check(&program, scope).map_err(|wrong| format!("compilation failed: {wrong}"))?;
    Ok((program, own))
}

/// Why an evaluation failed, in upstream's words where there are such.
pub fn error_text(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnexpectedType { .. } => "no such overload".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}' (in container '')"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::IndexOutOfBounds(cel::Value::Int(index)) => format!("index out of bounds: {index}"),
        other => other.to_string(),
    }
}
