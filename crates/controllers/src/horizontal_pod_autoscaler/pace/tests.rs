//! What behaviours allow, by example.

use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn behavior(value: Value) -> Option<HorizontalPodAutoscalerBehavior> {
    (!value.is_null()).then(|| serde_json::from_value(value).unwrap())
}

const WINDOW: SignedDuration = SignedDuration::from_secs(300);

#[test]
fn limits_are_upstreams() {
    let pods = |value: i32| json!([{ "type": "Pods", "value": value, "periodSeconds": 60 }]);
    let both = json!([
        { "type": "Pods", "value": 1, "periodSeconds": 60 },
        { "type": "Percent", "value": 50, "periodSeconds": 60 },
    ]);
    let up = |rules: Value| json!({ "scaleUp": rules });
    let down = |rules: Value| json!({ "scaleDown": rules });
    let now = json!(0);
    for (rules, current, desired, replicas, able, limited) in [
        (Value::Null, 1, 10, 4, "ReadyForNewScale", "ScaleUpLimit"),
        (Value::Null, 3, 10, 6, "ReadyForNewScale", "ScaleUpLimit"),
        (Value::Null, 8, 30, 16, "ReadyForNewScale", "ScaleUpLimit"),
        (Value::Null, 15, 90, 20, "ReadyForNewScale", "TooManyReplicas"),
        (Value::Null, 3, 5, 5, "ReadyForNewScale", "DesiredWithinRange"),
        (Value::Null, 5, 3, 5, "ScaleDownStabilized", "DesiredWithinRange"),
        (up(json!({ "policies": pods(2) })), 3, 9, 5, "ReadyForNewScale", "ScaleUpLimit"),
        (up(json!({ "policies": both })), 6, 19, 9, "ReadyForNewScale", "ScaleUpLimit"),
        (up(json!({ "policies": both, "selectPolicy": "Min" })), 6, 19, 7, "ReadyForNewScale", "ScaleUpLimit"),
        (up(json!({ "selectPolicy": "Disabled" })), 6, 19, 6, "ReadyForNewScale", "ScaleUpLimit"),
        (up(json!({})), 6, 19, 12, "ReadyForNewScale", "ScaleUpLimit"),
        (up(json!({ "policies": pods(50) })), 6, 45, 20, "ReadyForNewScale", "TooManyReplicas"),
        (up(json!({ "stabilizationWindowSeconds": 60 })), 6, 9, 6, "ScaleUpStabilized", "DesiredWithinRange"),
        (down(json!({})), 6, 3, 6, "ScaleDownStabilized", "DesiredWithinRange"),
        (down(json!({ "stabilizationWindowSeconds": now })), 6, 3, 3, "ReadyForNewScale", "DesiredWithinRange"),
        (
            down(json!({ "stabilizationWindowSeconds": 0, "policies": pods(2) })),
            6,
            3,
            4,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (
            down(json!({ "stabilizationWindowSeconds": 0, "policies": both })),
            6,
            2,
            3,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (
            down(json!({ "stabilizationWindowSeconds": 0, "policies": both, "selectPolicy": "Min" })),
            6,
            2,
            5,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (
            down(json!({ "stabilizationWindowSeconds": 0, "selectPolicy": "Disabled" })),
            6,
            2,
            6,
            "ReadyForNewScale",
            "ScaleDownLimit",
        ),
        (down(json!({ "stabilizationWindowSeconds": 0 })), 6, 1, 2, "ReadyForNewScale", "TooFewReplicas"),
    ] {
        let mut memory = Memory::default();
        memory.begin(current, at(0));
        let wish = Wish { current, desired, least: 2, most: 20 };
        let done = memory.normalize(behavior(rules.clone()).as_ref(), wish, WINDOW, at(15));
        let actual = (done.replicas, done.able.reason.as_str(), done.limited.reason.as_str());
        assert_eq!(actual, (replicas, able, limited), "{rules} {current} -> {desired}");
        assert_eq!(done.limited.holds, limited != "DesiredWithinRange");
    }
}

#[test]
fn recommendations_are_remembered_for_their_window_only() {
    let mut memory = Memory::default();
    memory.begin(2, at(0));
    let mut normalize = |current, desired, seconds| {
        memory.normalize(None, Wish { current, desired, least: 1, most: 20 }, WINDOW, at(seconds)).replicas
    };
    assert_eq!(normalize(2, 4, 15), 4);
    assert_eq!(normalize(4, 1, 30), 4);
    assert_eq!(normalize(4, 2, 315), 4);
    assert_eq!(normalize(4, 1, 316), 2);
    assert_eq!(normalize(2, 1, 631), 1);
    assert!(memory.recommendations.len() <= 2, "{memory:?}");
}

#[test]
fn what_was_done_within_a_period_counts_against_its_limit() {
    let rules = json!({
        "scaleUp": { "policies": [{ "type": "Pods", "value": 4, "periodSeconds": 60 }] },
        "scaleDown": { "stabilizationWindowSeconds": 0,
            "policies": [{ "type": "Percent", "value": 50, "periodSeconds": 60 }] },
    });
    let rules = behavior(rules);
    let mut memory = Memory::default();
    memory.begin(2, at(0));
    let mut current = 2;
    for (seconds, desired, replicas) in
        [(0, 5, 5), (15, 9, 6), (30, 9, 6), (61, 9, 9), (62, 1, 2), (63, 1, 2), (122, 1, 1)]
    {
        let wish = Wish { current, desired, least: 1, most: 20 };
        let done = memory.normalize(rules.as_ref(), wish, WINDOW, at(seconds)).replicas;
        assert_eq!(done, replicas, "after {seconds} s");
        if done != current {
            memory.changed(rules.as_ref(), current, done, at(seconds));
            current = done;
        }
    }
    assert!(memory.added.len() <= 2 && memory.removed.len() <= 2, "{memory:?}");
}
