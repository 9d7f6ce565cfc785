//! Audit: which requests are recorded, what is recorded of them, and where it goes.
//!
//! A policy decides (`policy.rs`), events are encoded (`event.rs`), and end up in a file or at a webhook (`target.rs`) on
//! one of several ways (`backend.rs`). Knows nothing of how requests are served. Invariant: a backend that is slow or away
//! stops no request, but where it was asked to.

mod audit;
mod backend;
mod event;
mod log_file;
mod metrics;
mod options;
mod policy;
mod target;
mod webhook;

pub use audit::{Audit, AuditError};
pub use event::{Event, ObjectReference, ResponseStatus, object, object_of_json, user_agent};
pub use options::{AuditOptions, BatchOptions, LogOptions, OptionError, TruncateOptions, WebhookOptions};
pub use policy::{Decision, Level, Policy, PolicyError, Stage, Stages};
pub use webhook::WebhookError;
