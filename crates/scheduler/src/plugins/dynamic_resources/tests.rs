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

/// A pod that asks for extended resources, behind which class `any` stands.
fn with_extended(count: &str) -> PodInfo {
    pod(json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": {"x.io/gpu": count}}}]}}))
}

fn with_class(pod: &PodInfo, left: &[Arc<ResourceClaim>]) -> DeviceFacts {
    let class = json!({"metadata": {"name": "any"}, "spec": {"extendedResourceName": "x.io/gpu"}});
    let mut facts = DeviceFacts { classes: vec![parse(class)], ..facts(vec![]) };
    facts.extended = Extended::of(pod, &facts.classes, left);
    facts
}

#[test]
fn classes_stand_behind_extended_resources() {
    let check = |count: &str, expected: [&str; 2]| {
        let pod = with_extended(count);
        assert_eq!(reasons(&pod, with_class(&pod, &[])), expected, "{count}");
    };
    check("2", ["", NOT_ENOUGH]);
    check("3", [NOT_ENOUGH, NOT_ENOUGH]);
    let own = node(json!({"metadata": {"name": "b"}, "status": {"allocatable": {"x.io/gpu": "4"}}}), vec![]);
    let (pod, nodes) = (with_extended("2"), [own]);
    let facts = with_class(&pod, &[]);
    assert!(claim_plans(&pod, &nodes[0], &facts).is_empty(), "a plug-in's devices need no claim");
    let surroundings = Surroundings { devices: Some(facts), ..Surroundings::default() };
    assert_eq!(filter_in(&DynamicResources, &pod, &nodes, &surroundings), [Verdict::Fits]);
}

#[test]
fn a_claim_is_planned_for_what_the_node_lacks() {
    let (pod, at) = (with_extended("2"), node(json!({"metadata": {"name": "a"}}), vec![]));
    let facts = with_class(&pod, &[]);
    let plans = claim_plans(&pod, &at, &facts);
    let [plan] = &plans[..] else { panic!("{plans:?}") };
    assert!(plan.is_unmade() && is_made_for(&plan.claim, &pod));
    let devices = plan.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref()?.results.clone()).unwrap();
    assert_eq!(devices.iter().map(|device| device.device.as_str()).collect::<Vec<_>>(), ["d0", "d1"]);
    assert!(devices.iter().all(|device| device.request == plan.mappings[0].request_name));
}

#[test]
fn what_an_attempt_left_behind_goes_first() {
    let (pod, at) = (with_extended("1"), node(json!({"metadata": {"name": "a"}}), vec![]));
    let claim = claim_plans(&pod, &at, &with_class(&pod, &[])).remove(0).claim;
    let facts = with_class(&pod, std::slice::from_ref(&claim));
    assert!(left_behind(&facts).is_some_and(|left| Arc::ptr_eq(&left, &claim)));
    assert_eq!(reasons(&pod, facts), [LEFT, LEFT]);
    assert!(left_behind(&with_class(&with_extended("1"), &[])).is_none());
}

#[test]
fn the_other_resources_of_a_pod_must_still_fit() {
    let fit = crate::plugins::new_plugin("NodeResourcesFit", &Default::default(), &[]).unwrap().unwrap();
    let pod = with_extended("2");
    let at = |amounts: Value| node(json!({"metadata": {"name": "a"}, "status": {"allocatable": amounts}}), vec![]);
    let nodes = [at(json!({"pods": "9"})), at(json!({"pods": "9", "x.io/gpu": "1"})), at(json!({}))];
    let with = Surroundings { devices: Some(with_class(&pod, &[])), ..Surroundings::default() };
    let texts = |surroundings: &Surroundings| -> Vec<String> {
        filter_in(&*fit, &pod, &nodes, surroundings).iter().map(|verdict| verdict.reasons().join(", ")).collect()
    };
    assert_eq!(texts(&with), ["", "Insufficient x.io/gpu", "Too many pods"]);
    let without = ["Insufficient x.io/gpu", "Insufficient x.io/gpu", "Too many pods, Insufficient x.io/gpu"];
    assert_eq!(texts(&Surroundings::default()), without);
}
