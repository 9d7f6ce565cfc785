//! The types of expressions: what cannot be is found before anything is evaluated, with its place in the expression.
//!
//! Follows the rules of CEL's own checker: types unify, the first fitting signatures decide what a call comes to, and what
//! nothing is known of goes with everything. Invariant: an expression that passes may still fail on values of unknown
//! types, but never on those of declared ones.

mod literals;
mod report;
mod signatures;
mod types;
mod unify;
mod visit;

use std::collections::BTreeMap;

use cel::Program;

pub(crate) use report::with_place;
pub use types::{Fields, ObjectType, Type};

/// The names that an expression may use, with their types; a name may have dots.
#[derive(Debug, Clone, Default)]
pub struct Scope(BTreeMap<String, Type>);

impl Scope {
    /// A scope of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = (&'a str, Type)>) -> Self {
        Self(names.into_iter().map(|(name, own)| (name.to_owned(), own)).collect())
    }

    /// Declares one more name.
    pub fn declare(&mut self, name: &str, own: Type) {
        self.0.insert(name.to_owned(), own);
    }
}

/// The type of a compiled expression. The error is upstream's text: each mistake with its place and the line it is in.
pub fn check(program: &Program, scope: &Scope) -> Result<Type, String> {
    let mut checker = visit::Checker::new(program.source_info(), &scope.0);
    let found = checker.visit_whole(program.expression());
    checker.literals(program.expression());
    match checker.finish() {
        problems if problems.is_empty() => Ok(found),
        problems => Err(problems.join("\n")),
    }
}

#[cfg(test)]
mod tests;
