//! Pages that a component shows of itself: `/statusz`, since when it runs and as which version; `/flagz`, with which flags it
//! was started. For people as text, and for programs as kinds of `config.k8s.io`. And `/debug/flags/v`, how much it logs.
//!
//! Pure: who may read a page, and how it gets to them, is the component's to say. Invariant: programs get the form that they
//! ask for by group, version and kind, or none.

mod flagz;
mod form;
mod statusz;
mod verbosity;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use flagz::flagz;
pub use statusz::statusz;
pub use verbosity::{DEBUG_FLAGS, SetVerbosity, answer_verbosity, on_verbosity};

/// Flags by their names, without dashes; the values are what they are set to, also where nobody set them.
pub type Flags = BTreeMap<String, String>;

/// Whose pages these are.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its name, as upstream's component of this kind calls itself.
    pub name: &'static str,
    /// Since when it runs.
    pub started: Timestamp,
    /// How it was started.
    pub flags: Flags,
}

/// A page, to be answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// What it says.
    pub text: String,
    /// The header `Warning`, where the form that was asked for will go.
    pub warning: Option<&'static str>,
}
