//! The annotations that steer the simulation. A value that cannot be read counts as absent.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};

/// On a node: `"true"` where it is simulated.
pub const SIMULATED: &str = "kedge.dev/simulated";
/// On a node: `"true"` where it says nothing any more, as one without power: no lease, no status, nothing for its pods.
pub const SILENT: &str = "kedge.dev/simulated-silent";
/// On a node or pod: `"false"` where it is not ready.
pub const READY: &str = "kedge.dev/simulated-ready";
/// On a pod: how long it stays `Pending` on its node, such as `3s`.
pub const START_DELAY: &str = "kedge.dev/simulated-start-delay";
/// On a pod: after how long its containers exit, such as `1m30s`; never where absent, after a second for pods of a Job.
pub const RUN_TIME: &str = "kedge.dev/simulated-run-time";
/// On a pod: with which code they exit; 0 where absent.
pub const EXIT_CODE: &str = "kedge.dev/simulated-exit-code";
/// On a pod: how often its containers have been restarted at least; each restart that is added happens at once.
pub const RESTARTS: &str = "kedge.dev/simulated-restarts";
/// On a pod: how long it takes to end, within its grace period; no time where absent.
pub const STOP_TIME: &str = "kedge.dev/simulated-stop-time";

/// How long the containers of a Job's pod run.
const JOB_RUN_TIME: Duration = Duration::from_secs(1);

/// Whether a node is simulated.
pub fn is_simulated(node: &Node) -> bool {
    node.metadata.annotations.as_ref().and_then(|all| all.get(SIMULATED)).is_some_and(|value| value == "true")
}

/// What a node's annotations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeScript {
    pub(crate) is_simulated: bool,
    pub(crate) is_silent: bool,
    pub(crate) is_ready: bool,
}

impl NodeScript {
    pub(crate) fn of(node: &Node) -> Self {
        let said = |key| node.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
        Self {
            is_simulated: is_simulated(node),
            is_silent: said(SILENT) == Some("true"),
            is_ready: said(READY) != Some("false"),
        }
    }

    /// Whether it does anything at all.
    pub(crate) fn acts(self) -> bool {
        self.is_simulated && !self.is_silent
    }
}

/// What a pod's annotations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodScript {
    pub(crate) is_ready: bool,
    pub(crate) start_delay: Duration,
    pub(crate) run_time: Option<Duration>,
    pub(crate) exit_code: i32,
    pub(crate) restarts: i32,
    pub(crate) stop_time: Duration,
}

impl PodScript {
    pub(crate) fn of(pod: &Pod) -> Self {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let all = pod.metadata.annotations.as_ref().unwrap_or(&NONE);
        let span = |key| all.get(key).and_then(|text| duration(text));
        let number = |key| all.get(key).and_then(|text| text.parse::<i32>().ok());
        Self {
            is_ready: all.get(READY).is_none_or(|value| value != "false"),
            start_delay: span(START_DELAY).unwrap_or_default(),
            run_time: span(RUN_TIME).or_else(|| is_of_job(pod).then_some(JOB_RUN_TIME)),
            exit_code: number(EXIT_CODE).unwrap_or_default(),
            restarts: number(RESTARTS).unwrap_or_default().max(0),
            stop_time: span(STOP_TIME).unwrap_or_default(),
        }
    }
}

fn is_of_job(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.kind == "Job")
}

/// A duration such as `1m30s`; none below zero.
fn duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn script(annotations: serde_json::Value) -> PodScript {
        PodScript::of(&serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap())
    }

    #[test]
    fn a_pods_annotations_are_read() {
        let plain = script(json!({}));
        assert_eq!((plain.is_ready, plain.run_time, plain.exit_code, plain.restarts), (true, None, 0, 0));
        let told = script(json!({
            READY: "false", START_DELAY: "1500ms", RUN_TIME: "1m30s", EXIT_CODE: "3", RESTARTS: "2", STOP_TIME: "4s",
        }));
        assert!(!told.is_ready);
        assert_eq!(told.start_delay, Duration::from_millis(1500));
        assert_eq!(told.run_time, Some(Duration::from_secs(90)));
        assert_eq!((told.exit_code, told.restarts, told.stop_time.as_secs()), (3, 2, 4));
    }

    #[test]
    fn what_cannot_be_read_counts_as_absent() {
        let odd = script(json!({RUN_TIME: "soon", EXIT_CODE: "x", RESTARTS: "-1", START_DELAY: "-3s"}));
        assert_eq!(odd, script(json!({})));
    }

    #[test]
    fn pods_of_jobs_end() {
        let owner = |kind| {
            let owners = json!([{"apiVersion": "v1", "kind": kind, "name": "x", "uid": "1", "controller": true}]);
            let pod = json!({"metadata": {"ownerReferences": owners}});
            PodScript::of(&serde_json::from_value(pod).unwrap()).run_time
        };
        assert_eq!(owner("Job"), Some(Duration::from_secs(1)));
        assert_eq!(owner("ReplicaSet"), None);
    }

    #[test]
    fn a_nodes_annotations_are_read() {
        let acts = |annotations: serde_json::Value| {
            NodeScript::of(&serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()).acts()
        };
        assert!(acts(json!({SIMULATED: "true"})));
        assert!(!acts(json!({})));
        assert!(!acts(json!({SIMULATED: "yes"})));
        assert!(!acts(json!({SIMULATED: "true", SILENT: "true"})));
    }
}
