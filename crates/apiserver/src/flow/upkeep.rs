//! What priority and fairness does apart from requests: seats are shared out anew, conditions are written.
//!
//! Invariant: two servers that disagree about a schema write its condition a few times a minute at most.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;

use crate::core::Core;
use crate::own_request::send;

/// How often seats are shared out anew.
const PERIOD: Duration = Duration::from_secs(10);

/// How often at most where somebody waits for them.
///
/// DIVERGES: upstream lets them wait for the period's end, also beside levels that have nothing to do.
const PAUSE: Duration = Duration::from_millis(50);

/// So often the condition of a schema is written within [`WINDOW`].
const WRITES: usize = 6;

const WINDOW: Duration = Duration::from_secs(60);

/// Who owns the conditions.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Runs until it is aborted.
pub(crate) async fn keep_up(core: Arc<Core>) {
    let mut period = tokio::time::interval(PERIOD);
    let mut written = HashMap::new();
    let mut shared_out = Instant::now();
    loop {
        tokio::select! {
            _ = period.tick() => core.flow.rebalance(&core).await,
            () = core.flow.scarce.notified() => {
                tokio::time::sleep(PAUSE.saturating_sub(shared_out.elapsed())).await;
                core.flow.rebalance(&core).await;
                shared_out = Instant::now();
                continue;
            }
            () = core.flow.changed.notified() => {}
        }
        write_conditions(&core, &mut written).await;
    }
}

async fn write_conditions(core: &Arc<Core>, written: &mut HashMap<String, VecDeque<Instant>>) {
    core.flow.catch_up(core).await;
    let plan = core.flow.plan.load_full();
    written.retain(|_, times| times.back().is_some_and(|last| last.elapsed() < WINDOW));
    for (name, texts) in &plan.dangling {
        let times = written.entry(name.clone()).or_default();
        while times.front().is_some_and(|first| first.elapsed() > WINDOW) {
            times.pop_front();
        }
        if times.len() < WRITES {
            times.push_back(Instant::now());
            write_condition(core, name, texts).await;
        }
    }
}

async fn write_condition(core: &Arc<Core>, name: &str, texts: &[String; 3]) {
    let [status, reason, message] = texts;
    let time = kedge_meta::format_time(core.clock.now());
    let condition =
        json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": time});
    let object = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "status": {"conditions": [condition]}});
    let path =
        format!("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/{name}/status?fieldManager={MANAGER}&force=true");
    let status = send(core, Method::PATCH, &path, "application/apply-patch+yaml", &object).await;
    // One that was deleted meanwhile needs no condition.
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        tracing::warn!(flow_schema = name, %status, "the condition Dangling could not be written");
    }
}
