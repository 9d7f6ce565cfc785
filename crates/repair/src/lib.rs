//! Repairs: each action of a repair becomes operations that are checked before, shown as a diff, written down with what
//! undoes them, and then done.
//!
//! It decides nothing: which action mends what is the diagnosis's. Invariant: before anything is changed, what undoes it
//! is on the disk; what cannot be undone is not done.

mod api;
mod host;
mod journal;
mod operation;
mod plan;

pub use host::{Access, Host, HostError};
pub use journal::{Journal, JournalError, Record, RecordState};
pub use operation::{Operation, UnitVerb};
pub use plan::{NotPossible, Plan, PlannedStep, plan_repair};
