//! Passes over Jobs, by example.

use super::*;
use crate::job::pods::FINALIZER;
use crate::pods::fixtures::{pod, terminating, with_phase};
use k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::PodCondition;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job(completions: Option<i32>, parallelism: i32) -> Job {
    let mut job = Job {
        spec: Some(JobSpec {
            completions,
            parallelism: Some(parallelism),
            backoff_limit: Some(2),
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    job.metadata.name = Some("count".to_owned());
    job
}

fn tracked(name: &str, phase: &str) -> Arc<Pod> {
    let mut pod = with_phase(pod(name), phase);
    pod.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    Arc::new(pod)
}

fn counted(succeeded: i32, failed: i32) -> JobStatus {
    JobStatus { succeeded: Some(succeeded), failed: Some(failed), ..JobStatus::default() }
}

fn run(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    plan(job, pods, Failures::default(), true, NOW)
}

fn show(plan: &Plan) -> String {
    let conditions: Vec<String> = plan
        .status
        .conditions
        .iter()
        .flatten()
        .map(|condition| format!("{}={}", condition.type_, condition.reason.as_deref().unwrap()))
        .collect();
    format!("+{} -{} x{} {}", plan.create.len(), plan.discard.len(), plan.terminate.len(), conditions.join(" "))
}

#[test]
fn pods_run_until_enough_succeeded() {
    let check = |completions: Option<i32>, parallelism, counts: (i32, i32), pods: &[Arc<Pod>], expected: &str| {
        let job = Job { status: Some(counted(counts.0, counts.1)), ..job(completions, parallelism) };
        assert_eq!(show(&run(&job, pods)).trim_end(), expected);
    };
    let running = |name: &str| tracked(name, "Running");
    check(Some(3), 2, (0, 0), &[], "+2 -0 x0");
    check(Some(3), 2, (0, 0), &[running("a")], "+1 -0 x0");
    check(Some(3), 2, (2, 0), &[], "+1 -0 x0");
    check(Some(3), 2, (2, 0), &[running("a"), running("b")], "+0 -1 x0");
    check(Some(3), 1, (3, 0), &[], "+0 -0 x0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached");
    check(None, 3, (0, 0), &[], "+3 -0 x0");
    check(None, 3, (1, 0), &[running("a")], "+0 -0 x0");
    check(None, 3, (1, 0), &[], "+0 -0 x0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached");
}

#[test]
fn a_job_is_complete_only_when_its_last_pod_is_counted() {
    let job = job(Some(1), 1);
    let done = tracked("a", "Succeeded");
    let first = run(&job, std::slice::from_ref(&done));
    assert_eq!(show(&first), "+0 -0 x0 SuccessCriteriaMet=CompletionsReached");
    assert_eq!(first.release.len(), 1);
    let job = Job { status: Some(first.status), ..job };
    let mut released = (*done).clone();
    released.metadata.finalizers = None;
    let second = run(&job, &[Arc::new(released)]);
    assert_eq!(show(&second), "+0 -0 x0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached");
    assert_eq!(second.status.succeeded, Some(1));
    assert!(second.status.completion_time.is_some());
    assert_eq!(second.announce[0].message, "Job completed");
}

#[test]
fn too_many_failures_end_the_job_and_its_pods() {
    let job = Job { status: Some(counted(0, 3)), ..job(Some(5), 2) };
    let first = run(&job, &[tracked("a", "Running")]);
    assert_eq!(show(&first), "+0 -0 x1 FailureTarget=BackoffLimitExceeded");
    assert!(first.announce.is_empty());
    let job = Job { status: Some(first.status), ..job };
    let ending = Arc::new(terminating((*tracked("a", "Running")).clone()));
    assert_eq!(show(&run(&job, &[ending])), "+0 -0 x0 FailureTarget=BackoffLimitExceeded");
    let last = run(&job, &[]);
    assert_eq!(show(&last), "+0 -0 x0 FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded");
    assert_eq!(last.announce[0].reason, "BackoffLimitExceeded");
    assert!(is_finished(&last.status));
}

#[test]
fn deadlines_and_suspension() {
    let mut job = job(Some(1), 1);
    let spec = job.spec.get_or_insert_default();
    spec.active_deadline_seconds = Some(30);
    job.status = Some(JobStatus { start_time: Some(Time(NOW)), ..JobStatus::default() });
    let pods = [tracked("a", "Running")];
    let at = |job: &Job, second| plan(job, &pods, Failures::default(), true, Timestamp::from_second(second).unwrap());
    assert_eq!(at(&job, 10).look_again, Some(Duration::from_secs(20)));
    assert_eq!(show(&at(&job, 30)), "+0 -0 x1 FailureTarget=DeadlineExceeded");
    job.spec.get_or_insert_default().suspend = Some(true);
    let suspended = at(&job, 30);
    assert_eq!(show(&suspended), "+0 -1 x0 Suspended=JobSuspended");
    assert_eq!(suspended.status.start_time, None);
    job.status = Some(suspended.status);
    job.spec.get_or_insert_default().suspend = Some(false);
    let resumed = at(&job, 40);
    assert_eq!(show(&resumed), "+0 -0 x0 Suspended=JobResumed");
    assert_eq!(resumed.status.start_time, Some(Time(Timestamp::from_second(40).unwrap())));
}

#[test]
fn failures_hold_up_new_pods() {
    let job = Job { status: Some(counted(0, 1)), ..job(Some(1), 1) };
    let failures = Failures { in_a_row: 2, last: Some(NOW) };
    let at = |second| plan(&job, &[], failures, true, Timestamp::from_second(second).unwrap());
    assert_eq!((at(5).create.len(), at(5).look_again), (0, Some(Duration::from_secs(15))));
    assert_eq!((at(20).create.len(), at(20).look_again), (1, None));
    assert_eq!(Failures { in_a_row: 30, last: Some(NOW) }.wait(NOW), Some(Duration::from_secs(600)));
}

#[test]
fn indexes_are_filled_from_below_and_doubles_go() {
    let mut job = job(Some(4), 3);
    job.spec.get_or_insert_default().completion_mode = Some("Indexed".to_owned());
    job.status = Some(JobStatus { completed_indexes: Some("1".to_owned()), ..JobStatus::default() });
    let of_index = |name: &str, index: i32| {
        let mut pod = (*tracked(name, "Running")).clone();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert("batch.kubernetes.io/job-completion-index".to_owned(), index.to_string());
        Arc::new(pod)
    };
    let created = run(&job, &[of_index("a", 0)]).create;
    assert_eq!(created.iter().filter_map(index_of).collect::<Vec<_>>(), [2, 3]);
    let doubled = run(&job, &[of_index("a", 0), of_index("b", 0), of_index("c", 9)]);
    let mut gone: Vec<_> = doubled.discard.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    gone.sort();
    assert_eq!((gone.len(), gone.contains(&"c".to_owned()), doubled.create.len()), (2, true, 0));
}

#[test]
fn pods_are_created_for_a_reason() {
    let check = |policy: Option<&str>, failed: i32, pods: &[Arc<Pod>], expected: PodReason| {
        let mut job = job(Some(5), 5);
        job.spec.get_or_insert_default().pod_replacement_policy = policy.map(str::to_owned);
        job.status = Some(counted(0, failed));
        let plan = run(&job, pods);
        assert_eq!(plan.reason, expected, "{policy:?} {failed}");
    };
    let ending = Arc::new(terminating((*tracked("a", "Running")).clone()));
    check(None, 0, &[], PodReason::New);
    check(None, 1, &[], PodReason::TerminatingOrFailed);
    check(Some("Failed"), 1, &[], PodReason::Failed);
    check(Some("Failed"), 0, &[ending], PodReason::TerminatingOrFailed);
}

#[test]
fn what_rules_of_the_failure_policy_are_about_is_counted() {
    let rule = |action: &str, condition: &str| PodFailurePolicyRule {
        action: action.to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: condition.to_owned(),
            status: None,
        }]),
        ..PodFailurePolicyRule::default()
    };
    let failed = |name: &str, condition: &str| {
        let mut pod = (*tracked(name, "Failed")).clone();
        let condition =
            PodCondition { type_: condition.to_owned(), status: "True".to_owned(), ..PodCondition::default() };
        pod.status.get_or_insert_default().conditions = Some(vec![condition]);
        Arc::new(pod)
    };
    let mut job = job(Some(5), 5);
    let rules = vec![rule("Ignore", "DisruptionTarget"), rule("Count", "Slow")];
    job.spec.get_or_insert_default().pod_failure_policy = Some(PodFailurePolicy { rules });
    let pods =
        [failed("a", "DisruptionTarget"), failed("b", "DisruptionTarget"), failed("c", "Slow"), failed("d", "-")];
    let counts = BTreeMap::from([("Count".to_owned(), 1), ("Ignore".to_owned(), 2)]);
    assert_eq!(run(&job, &pods).by_policy, counts);
}

#[test]
fn what_waited_for_a_successor_counts_before_the_end() {
    let mut job = job(Some(2), 2);
    let spec = job.spec.get_or_insert_default();
    spec.completion_mode = Some("Indexed".to_owned());
    (spec.backoff_limit, spec.backoff_limit_per_index, spec.max_failed_indexes) = (Some(i32::MAX), Some(1), Some(0));
    let failed = |name: &str, index: &str, failures: &str, is_tracked: bool| {
        let mut pod = (*tracked(name, "Failed")).clone();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert("batch.kubernetes.io/job-completion-index".to_owned(), index.to_owned());
        annotations.insert("batch.kubernetes.io/job-index-failure-count".to_owned(), failures.to_owned());
        pod.metadata.finalizers = pod.metadata.finalizers.filter(|_| is_tracked);
        Arc::new(pod)
    };
    let mut pass = |pods: &[Arc<Pod>], expected: &str, count: Option<i32>| {
        let plan = run(&job, pods);
        assert_eq!((show(&plan).as_str(), plan.status.failed), (expected, count));
        job.status = Some(plan.status);
    };
    let target = "+0 -0 x0 FailureTarget=MaxFailedIndexesExceeded";
    pass(&[failed("a", "0", "1", true), failed("b", "1", "0", true)], target, None);
    pass(&[failed("a", "0", "1", false), failed("b", "1", "0", true)], target, Some(1));
    let end = format!("{target} Failed=MaxFailedIndexesExceeded");
    pass(&[failed("a", "0", "1", false), failed("b", "1", "0", false)], &end, Some(2));
}

#[test]
fn too_many_successes_are_told() {
    let mut job = job(Some(1), 1);
    job.status = Some(counted(2, 0));
    let reasons: Vec<String> = run(&job, &[]).announce.into_iter().map(|said| said.reason).collect();
    assert_eq!(reasons, ["TooManySucceededPods", "Completed"]);
}

#[test]
fn workers_go_on_after_the_first_success() {
    let mut job = job(None, 1);
    job.status = Some(counted(1, 0));
    let plan = run(&job, &[tracked("a", "Running"), tracked("b", "Running")]);
    assert_eq!(show(&plan), "+0 -0 x0 ");
}
