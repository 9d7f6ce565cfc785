//! The one environment of all expressions, and how they are compiled.

use std::sync::{Arc, LazyLock};

use cel::parser::Expression;
use cel::{Context, Env, ExecutionError, Program, Value, extensions};

use crate::check::{Scope, Type, check, with_place};
use crate::walk::is_deeper_than;
use crate::{
    authorizer, binding, cidrs, duration, formats, formatting, ips, json_patch, lists, quantity, regexes, sets,
    timestamp, two_variables, urls, version,
};

/// How long an expression may be, in bytes.
const LONGEST: usize = 16 * 1024;

/// How deep parts of an expression may lie in each other.
const DEEPEST: usize = 250;

/// How many signs of operators an expression may have.
const MOST_SIGNS: usize = 2000;

/// What the parser may take of the stack at its own bound of nested parts, without optimisation: 0.25 MiB for each. Threads
/// of a server have 2 MiB.
const STACK_OF_THE_PARSER: usize = 32 << 20;

/// How deep parts may lie in each other that any stack has room for.
const SHALLOW: usize = 16;

/// What the evaluation of the deepest expression may take, without optimisation.
const STACK_OF_THE_DEEP: usize = 16 << 20;

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
    // What is refused is dropped there, too.
    stacker::maybe_grow(STACK_OF_THE_PARSER, STACK_OF_THE_PARSER, || parse(source))
}

fn parse(source: &str) -> Result<Program, String> {
    if source.len() > LONGEST {
        return Err(format!("compilation failed: must have at most {LONGEST} bytes"));
    }
    let too_deep =
        || format!("compilation failed: ERROR: <input>:-1:0: expression recursion limit exceeded: {DEEPEST}");
    // A chain of operators is as deep as it is long, and the parser has no bound of its own for it.
    let signs = source.bytes().filter(|byte| b"+-*/%.?[|&<>=".contains(byte)).count();
    if signs > MOST_SIGNS {
        return Err(too_deep());
    }
    let program = ENVIRONMENT.compile(source).map_err(|errors| {
        let from_one = |number: isize| usize::try_from(number).unwrap_or_default().saturating_sub(1);
        let errors = errors.errors.iter().map(|error| {
            let sign = if error.msg.starts_with("Syntax error") { "" } else { "Syntax error: " };
            with_place(source, from_one(error.pos.0), from_one(error.pos.1), &format!("{sign}{}", error.msg))
        });
        format!("compilation failed: {}", errors.collect::<Vec<_>>().join("\n"))
    })?;
    match is_deeper_than(program.expression(), DEEPEST) {
        true => Err(too_deep()),
        false => Ok(program),
    }
}

/// Compiles an expression over these names and finds its type; the error is upstream's text.
pub fn compile_checked(source: &str, scope: &Scope) -> Result<(Program, Type), String> {
    let program = compile(source)?;
    let own = with_room(program.expression(), || check(&program, scope));
    let own = own.map_err(|wrong| format!("compilation failed: {wrong}"))?;
    Ok((program, own))
}

/// The value of an expression.
pub fn evaluate(expression: &Expression, context: &Context) -> Result<Value, ExecutionError> {
    with_room(expression, || Value::resolve(expression, context))
}

/// Does what goes through an expression part by part, on a stack that is large enough for it.
pub fn with_room<T>(expression: &Expression, work: impl FnOnce() -> T) -> T {
    match is_deeper_than(expression, SHALLOW) {
        true => stacker::maybe_grow(STACK_OF_THE_DEEP, STACK_OF_THE_DEEP, work),
        false => work(),
    }
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
        ExecutionError::IndexOutOfBounds(Value::Int(index)) => format!("index out of bounds: {index}"),
        other => other.to_string(),
    }
}
