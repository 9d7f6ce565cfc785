//! What a namespace that is being deleted says about how that goes.
//!
//! Pure. Types, reasons and texts are upstream's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one attempt to empty a namespace found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The API's kinds could not be found out.
    pub(crate) discovery_error: Option<String>,
    /// Deletions that failed.
    pub(crate) deletion_errors: Vec<String>,
    /// How many objects are left, by resource and group.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// How many objects each finalizer holds.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Findings {
    /// Whether the namespace is empty, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.deletion_errors.is_empty() && self.remaining.is_empty()
    }
}

/// The conditions that the findings give; those that say nothing new stay as they are.
pub(crate) fn plan_conditions(
    current: &[NamespaceCondition],
    findings: &Findings,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let mut conditions = current.to_vec();
    for fresh in states(findings) {
        set_condition(&mut conditions, fresh, now);
    }
    conditions
}

/// Type, reason and message of a problem, and of its absence.
type State = (&'static str, Result<(&'static str, &'static str), (&'static str, String)>);

fn states(findings: &Findings) -> [State; 5] {
    let discovery = match &findings.discovery_error {
        Some(error) => Err(("DiscoveryFailed", format!("Discovery failed for some groups, 1 failing: {error}"))),
        None => Ok(("ResourcesDiscovered", "All resources successfully discovered")),
    };
    let deletion = match findings.deletion_errors.as_slice() {
        [] => Ok(("ContentDeleted", "All content successfully deleted, may be waiting on finalization")),
        errors => {
            let all = errors.join(", ");
            let text = format!("Failed to delete all resource types, {} remaining: {all}", errors.len());
            Err(("ContentDeletionFailed", text))
        }
    };
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
        parts.join(", ")
    };
    let remaining = match findings.remaining.is_empty() {
        true => Ok(("ContentRemoved", "All content successfully removed")),
        false => {
            let text = format!("Some resources are remaining: {}", list(&findings.remaining, "has"));
            Err(("SomeResourcesRemain", text))
        }
    };
    let finalizers = match findings.finalizers.is_empty() {
        true => Ok(("ContentHasNoFinalizers", "All content-preserving finalizers finished")),
        false => {
            let text =
                format!("Some content in the namespace has finalizers remaining: {}", list(&findings.finalizers, "in"));
            Err(("SomeFinalizersRemain", text))
        }
    };
    [
        ("NamespaceDeletionDiscoveryFailure", discovery),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            Ok(("ParsedGroupVersions", "All legacy kube types successfully parsed")),
        ),
        ("NamespaceDeletionContentFailure", deletion),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", finalizers),
    ]
}

fn set_condition(conditions: &mut Vec<NamespaceCondition>, (type_, state): State, now: Timestamp) {
    let (status, reason, message) = match state {
        Ok((reason, message)) => ("False", reason, message.to_owned()),
        Err((reason, message)) => ("True", reason, message),
    };
    let fresh = NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    let Some(current) = conditions.iter_mut().find(|condition| condition.type_ == type_) else {
        conditions.push(fresh);
        return;
    };
    let same = current.status == fresh.status && current.reason == fresh.reason && current.message == fresh.message;
    if !same {
        let since = current.last_transition_time.clone().filter(|_| current.status == fresh.status);
        *current = NamespaceCondition { last_transition_time: since.or(fresh.last_transition_time.clone()), ..fresh };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_become_upstream_conditions() {
        let check = |findings: &Findings, type_: &str, expected: (&str, &str, &str)| {
            let conditions = plan_conditions(&[], findings, Timestamp::UNIX_EPOCH);
            let condition = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
            let (reason, message) = (condition.reason.as_deref().unwrap(), condition.message.as_deref().unwrap());
            assert_eq!((condition.status.as_str(), reason, message), expected);
        };
        let clean = Findings::default();
        check(&clean, "NamespaceContentRemaining", ("False", "ContentRemoved", "All content successfully removed"));
        let mut busy = Findings::default();
        busy.remaining.insert("pods.".to_owned(), 2);
        busy.remaining.insert("jobs.batch".to_owned(), 1);
        busy.finalizers.insert("example.com/x".to_owned(), 2);
        check(
            &busy,
            "NamespaceContentRemaining",
            (
                "True",
                "SomeResourcesRemain",
                "Some resources are remaining: jobs.batch has 1 resource instances, pods. has 2 resource instances",
            ),
        );
        check(
            &busy,
            "NamespaceFinalizersRemaining",
            (
                "True",
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: example.com/x in 2 resource instances",
            ),
        );
    }

    #[test]
    fn times_move_only_with_the_status() {
        let later = Timestamp::from_second(60).unwrap();
        let mut findings = Findings::default();
        let first = plan_conditions(&[], &findings, Timestamp::UNIX_EPOCH);
        assert_eq!(plan_conditions(&first, &findings, later), first);
        findings.remaining.insert("pods.".to_owned(), 2);
        let second = plan_conditions(&first, &findings, later);
        let time =
            |conditions: &[NamespaceCondition]| conditions[3].last_transition_time.as_ref().unwrap().0.as_second();
        assert_eq!(time(&second), 60);
        findings.remaining.insert("pods.".to_owned(), 1);
        let third = plan_conditions(&second, &findings, Timestamp::from_second(90).unwrap());
        assert_eq!(time(&third), 60);
        assert_ne!(second, third);
    }
}
