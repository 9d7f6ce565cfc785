//! From evidence to causes: what was seen goes through rules, findings go through the relation of cause and effect, and
//! what nothing else explains comes out, lowest layer first, with its repair.
//!
//! Pure: no clock, no files, no network. Gathering evidence is `kedge-doctor`'s. Invariant: the same evidence gives the
//! same diagnosis, and every finding names the items of evidence that prove it.

mod accuracy;
mod action;
mod causes;
#[cfg(test)]
mod combined;
#[cfg(test)]
mod corpus;
mod diagnosis;
mod evidence;
mod facts;
mod finding;
mod items;
mod object;
mod onset;
mod ruled_out;
mod rules;
mod schema;
#[cfg(test)]
mod top_one;
mod twins;

pub use accuracy::{ACCURACY, Accuracy, Share};
pub use action::Action;
pub use diagnosis::{Cause, Diagnosis, Exhibit, diagnose};
pub use evidence::{Evidence, Item, Place, Unseen};
pub use facts::{
    CertificateFact, Fact, FileFact, FileKind, FileSystemFact, LogFact, LogSource, ManifestFact, MeasureFact,
    NetworkFact, ProcessFact, UnitFact, WellFact,
};
pub use finding::{Certainty, Finding, Repair, Severity, Step, Subject};
pub use items::Items;
pub use ruled_out::RuledOut;
pub use rules::{Explains, Layer, Rule, Scope, rules};
pub use schema::schema;
