//! Counting finished pods exactly once: a pod's end is first noted in the status, then its finalizer goes, then it moves
//! into the count.
//!
//! Pure. Invariant: at any moment each finished pod is on exactly one side: still with finalizer and not noted, noted, or
//! counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::{Indexes, format, parse};
use super::pods::{all_index_failures, has_finalizer, index_failures, index_of, is_failed, is_indexed, is_succeeded};
use super::policy::{Meaning, matching_rule, meaning};

/// At most so many pods are noted at a time, so that the status stays small.
const NOTED_LIMIT: usize = 500;

/// What the finished pods amount to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) succeeded: i32,
    pub(crate) failed: i32,
    pub(crate) succeeded_indexes: Indexes,
    pub(crate) failed_indexes: Indexes,
    /// Pods whose end is noted or will be by this write: their finalizers go after it.
    pub(crate) release: Vec<Arc<Pod>>,
    /// Pods that ended and were not noted before.
    pub(crate) fresh: Vec<Arc<Pod>>,
    /// Whether pods are noted or to be noted, so that the counts are not final.
    pub(crate) is_open: bool,
    /// Whether pods that ended are kept for their successors and not counted yet.
    pub(crate) holds_some: bool,
    /// How many of the pods that were noted now rules of the failure policy are about, by their action.
    pub(crate) by_policy: BTreeMap<String, u64>,
    /// Why the Job fails, if a pod's end says so.
    pub(crate) fail_job: Option<String>,
}

/// Counts, and updates the counting fields of the status. `is_ending`: pods get no successors any more.
pub(crate) fn tally(spec: &JobSpec, status: &mut JobStatus, pods: &[Arc<Pod>], is_ending: bool) -> Tally {
    let by_uid: HashMap<&str, &Arc<Pod>> =
        pods.iter().filter_map(|pod| Some((pod.metadata.uid.as_deref()?, pod))).collect();
    let completions = spec.completions.unwrap_or_default();
    let read = |text: &Option<String>| parse(text.as_deref().unwrap_or_default(), completions);
    let mut result = Tally {
        succeeded_indexes: read(&status.completed_indexes),
        failed_indexes: read(&status.failed_indexes),
        ..Tally::default()
    };
    let noted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut succeeded = settle(noted.succeeded, &by_uid, &mut status.succeeded, &mut result.release);
    let mut failed = settle(noted.failed, &by_uid, &mut status.failed, &mut result.release);
    let room = NOTED_LIMIT.saturating_sub(succeeded.len() + failed.len());
    let is_noted = |pod: &Pod, lists: [&Vec<String>; 2]| {
        let uid = pod.metadata.uid.as_ref();
        lists.iter().any(|list| list.iter().any(|noted| Some(noted) == uid))
    };
    let mut waiting = 0;
    for pod in pods {
        let ended = is_succeeded(pod) || is_failed(spec, pod);
        if !ended || !has_finalizer(pod) || is_noted(pod, [&succeeded, &failed]) {
            continue;
        }
        if !is_ending && is_held_for_successor(spec, pod, pods, &result) {
            result.holds_some = true;
            continue;
        }
        waiting += 1;
        if waiting > room {
            continue;
        }
        result.fresh.push(pod.clone());
        result.release.push(pod.clone());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        note(spec, pod, uid, &mut result, &mut succeeded, &mut failed);
    }
    result.is_open = !succeeded.is_empty() || !failed.is_empty() || waiting > 0;
    result.succeeded = match is_indexed(spec) {
        true => result.succeeded_indexes.len() as i32,
        false => status.succeeded.unwrap_or_default() + succeeded.len() as i32,
    };
    result.failed = status.failed.unwrap_or_default() + failed.len() as i32;
    write(spec, status, &result, succeeded, failed);
    result
}

/// Moves noted pods whose finalizer is gone into the count; returns those that are still noted.
fn settle(
    noted: Option<Vec<String>>,
    by_uid: &HashMap<&str, &Arc<Pod>>,
    count: &mut Option<i32>,
    release: &mut Vec<Arc<Pod>>,
) -> Vec<String> {
    let mut open = Vec::new();
    for uid in noted.unwrap_or_default() {
        match by_uid.get(uid.as_str()).filter(|pod| has_finalizer(pod)) {
            Some(pod) => {
                release.push((*pod).clone());
                open.push(uid);
            }
            None => *count = Some(count.unwrap_or_default() + 1),
        }
    }
    open
}

fn note(
    spec: &JobSpec,
    pod: &Arc<Pod>,
    uid: String,
    result: &mut Tally,
    succeeded: &mut Vec<String>,
    failed: &mut Vec<String>,
) {
    let index = index_of(pod).filter(|index| *index < spec.completions.unwrap_or_default());
    if is_succeeded(pod) {
        match (is_indexed(spec), index) {
            (true, None) => {}
            (true, Some(index)) => {
                // A second success of an index is not counted.
                if result.succeeded_indexes.insert(index) {
                    succeeded.push(uid);
                }
            }
            (false, _) => succeeded.push(uid),
        }
        return;
    }
    if let Some(rule) = matching_rule(spec, pod) {
        *result.by_policy.entry(rule.action.clone()).or_default() += 1;
    }
    match meaning(spec, pod) {
        Meaning::Ignore => return,
        Meaning::FailJob(text) => result.fail_job = result.fail_job.take().or(Some(text)),
        Meaning::FailIndex => result.failed_indexes.extend(index),
        Meaning::Count => {
            let limit = spec.backoff_limit_per_index;
            if limit.is_some_and(|limit| index_failures(pod) >= limit) {
                result.failed_indexes.extend(index);
            }
        }
    }
    failed.push(uid);
}

/// With a limit for each index the last failed pod of an index is kept until its successor carries its count on.
fn is_held_for_successor(spec: &JobSpec, pod: &Pod, pods: &[Arc<Pod>], result: &Tally) -> bool {
    let (Some(limit), Some(index)) = (spec.backoff_limit_per_index, index_of(pod)) else { return false };
    let is_final = result.succeeded_indexes.contains(&index)
        || result.failed_indexes.contains(&index)
        || index >= spec.completions.unwrap_or_default()
        || is_succeeded(pod)
        || match meaning(spec, pod) {
            Meaning::FailIndex | Meaning::FailJob(_) => true,
            Meaning::Count => index_failures(pod) >= limit,
            Meaning::Ignore => false,
        };
    if is_final {
        return false;
    }
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let succeeds = |other: &Pod| {
        other.metadata.uid != pod.metadata.uid
            && index_of(other) == Some(index)
            && (all_index_failures(other) > all_index_failures(pod) || created(other) > created(pod))
    };
    !pods.iter().any(|other| succeeds(other))
}

fn write(spec: &JobSpec, status: &mut JobStatus, result: &Tally, succeeded: Vec<String>, failed: Vec<String>) {
    let nonempty = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let noted = UncountedTerminatedPods { succeeded: nonempty(succeeded), failed: nonempty(failed) };
    status.uncounted_terminated_pods = Some(noted);
    if is_indexed(spec) {
        // Of the indexes that there are now: some may have been done away with.
        status.succeeded = Some(result.succeeded).filter(|succeeded| *succeeded > 0);
        let text = format(&result.succeeded_indexes);
        status.completed_indexes = Some(text).filter(|text| !text.is_empty());
        if spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(format(&result.failed_indexes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::pods::FINALIZER;
    use crate::pods::fixtures::{pod, terminating, with_phase};

    fn tracked(name: &str, phase: &str) -> Arc<Pod> {
        let mut pod = with_phase(pod(name), phase);
        pod.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        Arc::new(pod)
    }

    fn untracked(pod: &Arc<Pod>) -> Arc<Pod> {
        let mut pod = (**pod).clone();
        pod.metadata.finalizers = None;
        Arc::new(pod)
    }

    fn indexed(pod: &Arc<Pod>, index: i32, failures: i32) -> Arc<Pod> {
        let mut pod = (**pod).clone();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert("batch.kubernetes.io/job-completion-index".to_owned(), index.to_string());
        annotations.insert("batch.kubernetes.io/job-index-failure-count".to_owned(), failures.to_string());
        Arc::new(pod)
    }

    fn noted(status: &JobStatus) -> (usize, usize) {
        let noted = status.uncounted_terminated_pods.as_ref().unwrap();
        (noted.succeeded.as_ref().map_or(0, Vec::len), noted.failed.as_ref().map_or(0, Vec::len))
    }

    #[test]
    fn a_finished_pod_is_noted_released_and_counted_once() {
        let spec = JobSpec::default();
        let mut status = JobStatus::default();
        let done = tracked("a", "Succeeded");
        let first = tally(&spec, &mut status, &[done.clone(), tracked("b", "Running")], false);
        assert_eq!((first.succeeded, first.failed, first.release.len(), first.is_open), (1, 0, 1, true));
        assert_eq!((noted(&status), status.succeeded), ((1, 0), None));
        // The write is there, the finalizer still as well: released again, counted once.
        let second = tally(&spec, &mut status, std::slice::from_ref(&done), false);
        assert_eq!((second.succeeded, second.release.len(), second.fresh.len()), (1, 1, 0));
        let third = tally(&spec, &mut status, &[untracked(&done)], false);
        assert_eq!((third.succeeded, third.release.len(), third.is_open), (1, 0, false));
        assert_eq!((noted(&status), status.succeeded), ((0, 0), Some(1)));
        let fourth = tally(&spec, &mut status, &[], false);
        assert_eq!(fourth.succeeded, 1);
    }

    #[test]
    fn a_pod_that_is_deleted_counts_as_failed_unless_only_failed_ones_are_replaced() {
        let ending = Arc::new(terminating((*tracked("a", "Running")).clone()));
        let mut spec = JobSpec::default();
        let mut status = JobStatus::default();
        assert_eq!(tally(&spec, &mut status, std::slice::from_ref(&ending), false).failed, 1);
        spec.pod_replacement_policy = Some("Failed".to_owned());
        assert_eq!(tally(&spec, &mut JobStatus::default(), &[ending], false).failed, 0);
    }

    #[test]
    fn indexes_succeed_once_and_fail_at_their_limit() {
        let spec = JobSpec {
            completion_mode: Some("Indexed".to_owned()),
            completions: Some(3),
            backoff_limit_per_index: Some(1),
            ..JobSpec::default()
        };
        let mut status = JobStatus::default();
        let pods = [
            indexed(&tracked("a", "Succeeded"), 0, 0),
            indexed(&tracked("b", "Succeeded"), 0, 0),
            indexed(&tracked("c", "Failed"), 1, 1),
            indexed(&tracked("d", "Failed"), 2, 0),
        ];
        let result = tally(&spec, &mut status.clone(), &pods, true);
        assert_eq!((result.failed, result.holds_some), (2, false), "nobody waits where nobody comes");
        let result = tally(&spec, &mut status, &pods, false);
        assert!(result.holds_some);
        assert_eq!((result.succeeded, result.failed), (1, 1));
        assert_eq!(status.completed_indexes.as_deref(), Some("0"));
        assert_eq!(status.failed_indexes.as_deref(), Some("1"));
        // The first failure of index 2 waits for its successor.
        assert_eq!(result.release.len(), 3);
        let mut pods = pods.to_vec();
        pods.push(indexed(&tracked("e", "Running"), 2, 1));
        assert_eq!(tally(&spec, &mut status, &pods, false).failed, 2);
        // Index 0 is done away with.
        let fewer = JobSpec { completions: Some(0), ..spec };
        tally(&fewer, &mut status, &[], false);
        assert_eq!((status.succeeded, status.completed_indexes), (None, None));
    }
}
