//! Hostile input for every parser that faces the network: changed again and again from a saved corpus, on any toolchain.
//!
//! A target takes bytes and says in a number what came of them; inputs with a new number are kept and changed further.
//! Not a coverage-guided fuzzer. Invariant: a target that panics, hangs or takes too much memory is a finding with its
//! input in a file, and the same seed makes the same inputs.

mod memory;
mod mutate;
mod run;
mod targets;

pub use run::{Finding, Summary, run};
pub use targets::{TARGETS, Target};
