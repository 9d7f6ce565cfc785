//! Pods with claims in small worlds.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::framework::Surroundings;
use crate::plugins::test_world::{filter_in, node, pod, score_in};

fn parse<K: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn with_claim(name: &str) -> PodInfo {
    pod(json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
        "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimName": name}]}}))
}

fn claim(extra: Value) -> KnownClaim {
    let request = json!({"name": "r", "exactly": {"deviceClassName": "any"}});
    let mut value = json!({"metadata": {"name": "c", "namespace": "d", "uid": "c"},
        "spec": {"devices": {"requests": [request]}}});
    for (field, extra) in extra.as_object().unwrap() {
        value[field] = extra.clone();
    }
    KnownClaim { claim: parse(value), is_promised: false }
}

/// Node `a` has two devices, node `b` none.
fn facts(claims: Vec<KnownClaim>) -> DeviceFacts {
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": "a",
        "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "d0"}, {"name": "d1"}]}});
    DeviceFacts {
        claims,
        slices: vec![parse(slice)],
        classes: vec![parse(json!({"metadata": {"name": "any"}, "spec": {}}))],
        ..DeviceFacts::default()
    }
}

fn reasons(pod: &PodInfo, facts: DeviceFacts) -> Vec<String> {
    let nodes = [node(json!({"metadata": {"name": "a"}}), vec![]), node(json!({"metadata": {"name": "b"}}), vec![])];
    let surroundings = Surroundings { devices: Some(facts), ..Surroundings::default() };
    let verdicts = filter_in(&DynamicResources, pod, &nodes, &surroundings);
    verdicts.iter().map(|verdict| verdict.reasons().join(", ")).collect()
}

fn on(node: &str) -> Value {
    json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": [node]}]}]}}})
}

#[test]
fn nodes_must_have_the_devices() {
    let check = |known: KnownClaim, expected: [&str; 2]| {
        let text = format!("{known:?}");
        assert_eq!(reasons(&with_claim("c"), facts(vec![known])), expected, "{text}");
    };
    check(claim(json!({})), ["", NOT_ENOUGH]);
    check(claim(json!({"status": on("b")})), [NOT_HERE, ""]);
    check(claim(json!({"status": {"allocation": {}}})), ["", ""]);
    let text = "resource claim d/c is in the process of being allocated";
    check(KnownClaim { is_promised: true, ..claim(json!({})) }, [text, text]);
    let request = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "none"}}]}});
    let text = "request r: device class none does not exist";
    check(claim(json!({"spec": request})), [text, text]);
    let consumers: Vec<Value> =
        (0..256).map(|index| json!({"resource": "pods", "name": "x", "uid": index.to_string()})).collect();
    let full = json!({"status": {"allocation": {}, "reservedFor": consumers}});
    check(claim(full), ["resourceclaim in use", "resourceclaim in use"]);
}

#[test]
fn claims_must_be_there() {
    let check = |pod: &PodInfo, claims: Vec<KnownClaim>, expected: Option<&str>| {
        assert_eq!(not_ready(pod, &facts(claims)).as_deref(), expected);
    };
    let metadata = |extra: Value| {
        let mut metadata = json!({"name": "c", "namespace": "d", "uid": "c"});
        metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        claim(json!({ "metadata": metadata }))
    };
    check(&with_claim("c"), vec![claim(json!({}))], None);
    check(&with_claim("other"), vec![claim(json!({}))], Some("resourceclaim.resource.k8s.io \"other\" not found"));
    let deleted = metadata(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
    check(&with_claim("c"), vec![deleted], Some("resourceclaim \"c\" is being deleted"));
    let templated = |status: Value| {
        pod(json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
            "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": status}}))
    };
    check(&templated(json!([])), vec![], Some("pod \"d/p\": ResourceClaim not created yet"));
    check(&templated(json!([{"name": "gpu"}])), vec![], None);
    let named = templated(json!([{"name": "gpu", "resourceClaimName": "c"}]));
    check(&named, vec![claim(json!({}))], Some("ResourceClaim d/c was not created for Pod d/p (Pod is not owner)"));
    let owner = json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p"}]});
    check(&named, vec![metadata(owner)], None);
}

#[test]
fn plans_and_useless_allocations() {
    let nodes = [node(json!({"metadata": {"name": "a"}}), vec![]), node(json!({"metadata": {"name": "b"}}), vec![])];
    let all: Vec<Arc<NodeInfo>> = nodes.iter().cloned().map(Arc::new).collect();
    let pod = with_claim("c");
    let plans = claim_plans(&pod, &nodes[0], &facts(vec![claim(json!({}))]));
    let given = plans[0].allocation.as_ref().unwrap().devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(given[0].device, "d0");
    assert!(claim_plans(&pod, &nodes[1], &facts(vec![claim(json!({"status": on("b")}))]))[0].allocation.is_none());
    let gives_back = |status: Value| {
        let known = claim(json!({ "status": status }));
        to_give_back(&pod, &all, &facts(vec![known])).is_some()
    };
    let mut of_other = on("b");
    of_other["reservedFor"] = json!([{"resource": "pods", "name": "x", "uid": "x"}]);
    assert_eq!(
        [gives_back(on("b")), gives_back(of_other), gives_back(json!({"allocation": {}}))],
        [true, false, false]
    );
}

#[test]
fn attaching_is_waited_for() {
    let result = json!({"request": "r", "driver": "d", "pool": "a", "device": "d0",
        "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]});
    let state = |conditions: Value| {
        let conditions: Vec<Value> = conditions
            .as_array()
            .unwrap()
            .iter()
            .map(|name| {
                json!({"type": name, "status": "True", "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        attached(
            &claim(json!({"status": {"allocation": {"devices": {"results": [result]}}, "devices": [
            {"driver": "d", "pool": "a", "device": "d0", "conditions": conditions}]}}))
            .claim,
        )
    };
    assert_eq!(state(json!([])), Attached::NotYet);
    assert_eq!(state(json!(["Attached"])), Attached::Yes);
    let text = "device binding failed: claim=c, reason=R, message=\"m\"";
    assert_eq!(state(json!(["Attached", "Broken"])), Attached::Failed(text.to_owned()));
}

#[test]
fn better_alternatives_are_liked_more() {
    let alternative = |name: &str, count: i64| json!({"name": name, "deviceClassName": "any", "count": count});
    let list =
        json!({"devices": {"requests": [{"name": "r", "firstAvailable": [alternative("x", 2), alternative("y", 1)]}]}});
    let mut world = facts(vec![claim(json!({ "spec": list }))]);
    let other = json!({"metadata": {"name": "t"}, "spec": {"driver": "d", "nodeName": "b",
        "pool": {"name": "b", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d0"}]}});
    world.slices.push(parse(other));
    let nodes = [node(json!({"metadata": {"name": "a"}}), vec![]), node(json!({"metadata": {"name": "b"}}), vec![])];
    let surroundings = Surroundings { devices: Some(world), ..Surroundings::default() };
    assert_eq!(score_in(&DynamicResources, &with_claim("c"), &nodes, &surroundings), [100, 87]);
}
