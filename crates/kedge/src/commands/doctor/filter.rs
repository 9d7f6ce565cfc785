//! What of the evidence is looked at and what of the diagnosis is shown, as flags say.

use jiff::SignedDuration;
use kedge_diagnosis::{Diagnosis, Evidence, Fact, Item, Severity};

use crate::arguments::DoctorFlags;

/// Leaves out events and lines of logs that are older than `--since`.
pub(super) fn recent(mut evidence: Evidence, since: Option<SignedDuration>) -> Evidence {
    let Some(oldest) = since.and_then(|since| evidence.gathered.checked_sub(since).ok()) else { return evidence };
    let is_told = |item: &Item| match &item.fact {
        Fact::Log(_) => true,
        Fact::Object(object) => object["kind"] == "Event",
        _ => false,
    };
    let is_kept = |item: &Item| !is_told(item) || item.time.is_none_or(|time| time >= oldest);
    evidence.items = evidence.items.into_iter().filter(is_kept).collect();
    evidence
}

/// Leaves out causes that were not asked for. What concerns the whole cluster concerns every namespace.
pub(super) fn wanted(mut diagnosis: Diagnosis, flags: &DoctorFlags) -> Diagnosis {
    diagnosis.causes.retain(|cause| {
        let namespace = cause.subject.namespace.as_str();
        flags.namespace.as_ref().is_none_or(|wanted| namespace.is_empty() || namespace == wanted)
            && (flags.id.is_empty() || flags.id.iter().any(|id| id.eq_ignore_ascii_case(cause.id)))
            && !(flags.failures_only && cause.severity == Severity::Warning)
    });
    diagnosis
}
