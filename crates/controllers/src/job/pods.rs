//! A Job's pods: made from its template, told apart by index, finished or not.
//!
//! Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use crate::owners::controller_reference;
use crate::pods::{from_template, name_of, phase, ready_since};

/// Keeps a finished pod until it is counted.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// Whether every completion has an index.
pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether only failed pods are replaced, not those that are still ending.
pub(crate) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

pub(crate) fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The completion index of a pod.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

fn counted(pod: &Pod, annotation: &str) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(annotation)).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// How often the pod's index had failed before it.
pub(crate) fn index_failures(pod: &Pod) -> i32 {
    counted(pod, INDEX_FAILURES)
}

/// The same with failures that a rule said not to count.
pub(crate) fn all_index_failures(pod: &Pod) -> i32 {
    index_failures(pod) + counted(pod, INDEX_IGNORED_FAILURES)
}

pub(crate) fn is_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// Whether a pod counts as failed; one that is being deleted does, unless only failed pods are replaced.
pub(crate) fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_only_failed(spec),
    }
}

/// When a pod came to its end.
pub(crate) fn finished_at(pod: &Pod, now: Timestamp) -> Timestamp {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let ends = statuses.filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ends.max().or_else(|| ready_since(pod)).or(deleted).unwrap_or(now)
}

/// A pod of a Job, for an index where there are such; `failures` counts those of the index so far, and the ignored ones.
pub(crate) fn new_pod(job: &Job, spec: &JobSpec, index: Option<i32>, failures: (i32, i32)) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = from_template(&spec.template, controller_reference(job), namespace);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = name_of(&job.metadata);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.0.to_string());
        if failures.1 > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), failures.1.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{name}-{index}"));
    let containers = pod_spec.containers.iter_mut().chain(pod_spec.init_containers.iter_mut().flatten());
    for container in containers {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|variable| variable.name == INDEX_ENV) {
            env.push(index_variable());
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
    EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// The failure counts that the successor of an index's last pod starts with.
pub(crate) fn failures_after(last: Option<&Arc<Pod>>, is_ignored: bool) -> (i32, i32) {
    let Some(last) = last else { return (0, 0) };
    let (failures, ignored) = (index_failures(last), counted(last, INDEX_IGNORED_FAILURES));
    if is_ignored { (failures, ignored + 1) } else { (failures + 1, ignored) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    #[test]
    fn indexed_pods_know_their_index() {
        let mut job = Job::default();
        job.metadata.name = Some("count".to_owned());
        job.metadata.namespace = Some("default".to_owned());
        let mut spec = JobSpec { backoff_limit_per_index: Some(2), ..JobSpec::default() };
        spec.template.spec = Some(PodSpec { containers: vec![Container::default()], ..PodSpec::default() });
        let pod = new_pod(&job, &spec, Some(3), (1, 0));
        assert_eq!(index_of(&pod), Some(3));
        assert_eq!(index_failures(&pod), 1);
        assert!(has_finalizer(&pod));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("count-3-"));
        let pod_spec = pod.spec.unwrap();
        assert_eq!(pod_spec.hostname.as_deref(), Some("count-3"));
        assert_eq!(pod_spec.containers[0].env.as_ref().unwrap()[0].name, INDEX_ENV);
        let plain = new_pod(&job, &spec, None, (0, 0));
        assert_eq!((index_of(&plain), plain.metadata.generate_name.as_deref()), (None, Some("count-")));
    }
}
