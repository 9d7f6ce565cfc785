//! Drills: scenarios as data that break a cluster on purpose, and what brings it back.
//!
//! Not here: what is wrong with a cluster (the doctor says that; it is run as a program), and printing. Invariant: what
//! undoes a step is on the disk before the step is done, so that `stop` works after any crash.

mod action;
mod api;
mod breaking;
mod catalogue;
mod engine;
mod error;
mod finding;
mod history;
mod journal;
mod machines;
mod matrix;
mod observe;
mod probe;
mod scenario;
mod scenarios;
mod score;
mod target;
mod together;
mod undo;
mod variables;
mod verify;
mod witness;

pub use action::Action;
pub use catalogue::{builtin, find, load, read_scenarios};
pub use engine::{Checked, Drill, Plan, Started, Stopped};
pub use error::Error;
pub use finding::{Look, Named, rank};
pub use history::Outcome;
pub use journal::Run;
pub use matrix::matrix;
pub use probe::Probe;
pub use scenario::{Other, Repair, Scenario, Where};
pub use score::{Account, score};
pub use target::{Target, Targets};
pub use verify::Verified;

/// The schema of scenario files, as JSON Schema.
pub const SCHEMA: &str = include_str!("../schema/drill.schema.json");
