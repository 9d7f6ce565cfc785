//! Replicas by example: what upstream's calculator comes to.

use serde_json::json;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// A pod that asks for a core: `R`unning and ready, `U`nready, `P`ending, `F`ailed, or `N`ew (ready, but just started).
fn pod(index: usize, kind: char) -> Arc<Pod> {
    let phase = match kind {
        'P' => "Pending",
        'F' => "Failed",
        _ => "Running",
    };
    let ago = |seconds: i64| Timestamp::from_second(1_000_000 - seconds).unwrap().to_string();
    let (start, changed, ready) = match kind {
        'U' => (ago(1000), ago(999), "False"),
        'N' => (ago(60), ago(10), "True"),
        _ => (ago(1000), ago(990), "True"),
    };
    let container = json!({ "name": "main", "resources": { "requests": { "cpu": "1", "memory": "1Mi" } } });
    let pod = json!({
        "metadata": { "name": format!("pod-{index}") },
        "spec": { "containers": [container] },
        "status": { "phase": phase, "startTime": start,
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": changed }] },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn metrics(values: &[Option<i64>]) -> PodMetrics {
    let figure = |value| PodMetric { timestamp: now(), window: SignedDuration::from_secs(30), value };
    let named = values.iter().enumerate();
    named.filter_map(|(index, value)| Some((format!("pod-{index}"), figure((*value)?)))).collect()
}

fn situation(pods: &[Arc<Pod>], current: i32) -> Situation<'_> {
    Situation {
        current,
        pods,
        tolerances: Tolerances { down: 0.1, up: 0.1 },
        cpu_initialization_period: Duration::from_secs(300),
        initial_readiness_delay: Duration::from_secs(30),
        now: now(),
    }
}

#[test]
fn utilization_of_what_is_requested() {
    let (yes, no) = (Some, None::<i64>);
    for (pods, values, target, expected) in [
        // Up, down, within the tolerance.
        ("RRR", vec![yes(300), yes(500), yes(700)], 30, Ok((5, 50, 500))),
        ("RRRRR", vec![yes(100), yes(300), yes(500), yes(250), yes(250)], 50, Ok((3, 28, 280))),
        ("RRR", vec![yes(320), yes(320), yes(320)], 30, Ok((3, 32, 320))),
        // Pods that start up count as idle where the load grows, and not at all where it falls.
        ("RUU", vec![yes(500), yes(900), yes(900)], 30, Ok((3, 50, 500))),
        ("NRR", vec![yes(900), yes(500), yes(700)], 30, Ok((4, 60, 600))),
        ("UR", vec![yes(900), yes(100)], 30, Ok((1, 10, 100))),
        ("PRR", vec![no, yes(700), yes(700)], 30, Ok((5, 70, 700))),
        // Pods without figures: idle where the load grows, at their request where it falls.
        ("RRR", vec![yes(300), yes(900), no], 30, Ok((4, 60, 600))),
        ("RRR", vec![yes(100), yes(100), no], 30, Ok((3, 10, 100))),
        ("RRRR", vec![yes(100), yes(100), yes(100), no], 70, Ok((2, 10, 100))),
        // A failed pod is nobody.
        ("RFR", vec![yes(600), no, yes(600)], 30, Ok((4, 60, 600))),
        ("UU", vec![yes(1), yes(1)], 30, Err("did not receive metrics for targeted pods (pods might be unready)")),
        ("", vec![], 30, Err("no pods returned by selector while calculating replica count")),
    ] {
        let list: Vec<Arc<Pod>> = pods.chars().enumerate().map(|(index, kind)| pod(index, kind)).collect();
        let current = i32::try_from(list.len()).unwrap();
        let actual = by_utilization(&situation(&list, current), metrics(&values), "cpu", None, target);
        let actual = actual.map(|proposal| (proposal.replicas, proposal.utilization.unwrap(), proposal.usage));
        assert_eq!(actual, expected.map_err(str::to_owned), "{pods} {values:?}");
    }
}

#[test]
fn requests_that_are_missing_are_named() {
    let pods = [pod(0, 'R')];
    let check = |container: Option<&str>, resource: &str, text: &str| {
        let values = metrics(&[Some(1)]);
        let error = by_utilization(&situation(&pods, 1), values, resource, container, 50).unwrap_err();
        assert_eq!(error, text);
    };
    check(None, "ephemeral-storage", "missing request for ephemeral-storage in container main of Pod pod-0");
    check(Some("side"), "cpu", "container side not found in Pod pod-0");
}

#[test]
fn amounts_for_each_pod_and_for_the_whole() {
    let list: Vec<Arc<Pod>> = "RRR".chars().enumerate().map(|(index, kind)| pod(index, kind)).collect();
    let situation = situation(&list, 3);
    let plain = |values: &[Option<i64>], target| {
        by_usage(&situation, metrics(values), "", target).map(|proposal| (proposal.replicas, proposal.usage))
    };
    assert_eq!(plain(&[Some(20_000), Some(10_000), Some(30_000)], 15_000), Ok((4, 20_000)));
    assert_eq!(plain(&[Some(20_000), Some(10_000), None], 30_000), Ok((2, 15_000)));
    assert_eq!(plain(&[Some(20_000), Some(10_000), Some(30_000)], 20_000), Ok((3, 20_000)));
    let value = |usage, target| by_value(&situation, usage, target).unwrap().replicas;
    assert_eq!((value(20_000, 15_000), value(1_000, 20_000), value(20_000, 19_000)), (4, 1, 3));
    assert_eq!(value(i64::MAX, 1), i32::MAX);
    let tolerances = Tolerances { down: 0.1, up: 0.1 };
    let average = |usage, target| {
        let proposal = by_average(tolerances, 3, usage, target);
        (proposal.replicas, proposal.usage)
    };
    assert_eq!((average(8_600, 2_867), average(8_600, 2_150)), ((3, 2_867), (4, 2_867)));
}

#[test]
fn a_tolerance_of_its_own_for_each_direction() {
    let list: Vec<Arc<Pod>> = "RR".chars().enumerate().map(|(index, kind)| pod(index, kind)).collect();
    let check = |down, up, used, replicas| {
        let situation = Situation { tolerances: Tolerances { down, up }, ..situation(&list, 2) };
        let values = metrics(&[Some(used), Some(used)]);
        assert_eq!(by_utilization(&situation, values, "cpu", None, 50).unwrap().replicas, replicas);
    };
    check(0.1, 0.1, 540, 2);
    check(0.1, 0.0, 540, 3);
    check(0.5, 0.1, 260, 2);
    check(0.1, 0.1, 240, 1);
}
