//! Evidence from files, when the cluster is elsewhere or gone: Kedge's own bundles, those of other tools, and what people
//! paste.
//!
//! It looks at nothing but the files it is given, and never at the clock. Invariant: what a file cannot say is not guessed;
//! what could not be read is part of the evidence.

mod ahead;
mod certificates;
mod commands;
mod describe;
mod documents;
mod glance;
mod layout;
mod logs;
mod moments;
mod objects;
mod own;
mod reading;
mod redact;
mod reduce;
mod sources;
mod tables;
mod text;

pub use certificates::{certificate_fact, served_certificate_fact};
pub use moments::{Line, take_apart};
pub use own::{BundleError, write_bundle};
pub use reading::{Limits, read_bundle, read_text};
pub use redact::{redact, redact_arguments, redact_text};
pub use reduce::{OWN_EVENTS, Reducer};
