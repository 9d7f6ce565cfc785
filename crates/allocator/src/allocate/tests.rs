//! What claims get: each case is a world of slices, one or more claims, and the devices that are given.

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use crate::{AllocateError, Inventory, Selectors, Site, Taken};

const DRIVER: &str = "gpu.example.com";

fn device(name: &str, extra: Value) -> Value {
    let mut device = json!({ "name": name });
    device.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    device
}

/// A slice of the pool `p`, generation 1, of one slice, on the node `n`.
fn slice(devices: Vec<Value>) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {"driver": DRIVER, "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": devices}})
}

fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[field] = new;
    value
}

fn plain(names: &[&str]) -> Value {
    slice(names.iter().map(|name| device(name, json!({}))).collect())
}

fn class(name: &str, extra: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": extra})
}

fn exactly(name: &str, extra: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "any"});
    exactly.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"name": name, "exactly": exactly})
}

fn claim(requests: Vec<Value>, extra: Value) -> Value {
    let mut devices = json!({ "requests": requests });
    devices.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": "c", "namespace": "d", "uid": "u"}, "spec": {"devices": devices}})
}

fn one(extra: Value) -> Value {
    claim(vec![exactly("r", extra)], json!({}))
}

fn cel(expression: &str) -> Value {
    json!({"selectors": [{"cel": {"expression": expression}}]})
}

fn parse<T: k8s_openapi::serde::de::DeserializeOwned>(values: &[Value]) -> Vec<Arc<T>> {
    values
        .iter()
        .map(|value| Arc::new(serde_json::from_value(value.clone()).expect("the case is well formed")))
        .collect()
}

fn allocate_with(
    slices: &[Value],
    claims: &[Value],
    taken: &Taken,
) -> Result<Option<Vec<AllocationResult>>, AllocateError> {
    let slices = parse::<ResourceSlice>(slices);
    let classes = parse::<DeviceClass>(&[
        class("any", json!({})),
        class(
            "fast",
            json!({"selectors": [{"cel": {"expression": format!("device.attributes[\"{DRIVER}\"].fast")}}],
            "config": [{"opaque": {"driver": DRIVER, "parameters": {"mode": "fast"}}}]}),
        ),
    ]);
    let claims = parse::<ResourceClaim>(claims);
    let claims: Vec<&ResourceClaim> = claims.iter().map(|claim| &**claim).collect();
    let selectors = Selectors::default();
    let inventory = Inventory { slices: &slices, classes: &classes, taken, selectors: &selectors };
    let is_zone = |selector: &NodeSelector| {
        let mut all = selector.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
        all.all(|requirement| requirement.values.as_deref() == Some(&["here".to_owned()]))
    };
    inventory.allocate(&Site { name: "n", matches: &is_zone }, &claims, &|| "share".to_owned())
}

fn shown(outcome: Result<Option<Vec<AllocationResult>>, AllocateError>) -> String {
    let one = |allocation: &AllocationResult| {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        results.map(|result| format!("{}={}", result.request, result.device)).collect::<Vec<_>>().join(" ")
    };
    match outcome {
        Ok(None) => "none".to_owned(),
        Ok(Some(allocations)) => allocations.iter().map(one).collect::<Vec<_>>().join(" | "),
        Err(error) => error.to_string(),
    }
}

fn check(slices: &[Value], claims: &[Value], expected: &str) {
    let outcome = shown(allocate_with(slices, claims, &Taken::default()));
    assert_eq!(outcome, expected, "{slices:#?} {claims:#?}");
}

#[test]
fn counts_and_selectors() {
    let fast = |fast: bool| json!({"attributes": {"fast": {"bool": fast}}});
    let world = [slice(vec![device("a", fast(false)), device("b", fast(true)), device("c", fast(true))])];
    check(&world, &[one(json!({}))], "r=a");
    check(&world, &[one(json!({"count": 2}))], "r=a r=b");
    check(&world, &[one(json!({"count": 4}))], "none");
    check(&world, &[one(json!({"allocationMode": "All"}))], "r=a r=b r=c");
    check(&world, &[one(json!({"deviceClassName": "fast"}))], "r=b");
    check(&world, &[one(json!({"deviceClassName": "fast", "allocationMode": "All"}))], "r=b r=c");
    check(&world, &[one(cel(&format!("!device.attributes[\"{DRIVER}\"].fast")))], "r=a");
    check(&world, &[one(cel("device.driver == 'other'"))], "none");
    check(&world, &[one(json!({})), one(json!({"count": 2}))], "r=a | r=b r=c");
    check(&world, &[one(json!({"count": 2})), one(json!({"count": 2}))], "none");
    // The second claim can only have `b` and `c`: the first one goes on to... `a` is its first choice anyway.
    check(&world, &[one(json!({"deviceClassName": "fast", "count": 2})), one(json!({}))], "r=b r=c | r=a");
    check(&[], &[one(json!({}))], "none");
    check(
        &world,
        &[one(
            json!({"allocationMode": "All", "deviceClassName": "any", "selectors": [{"cel": {"expression": "false"}}]}),
        )],
        "none",
    );
}

#[test]
fn what_can_not_be_worked_with_is_said() {
    let world = [plain(&["a"])];
    let text =
        "claim d/c, request r: could not retrieve device class none: deviceclass.resource.k8s.io \"none\" not found";
    check(&world, &[one(json!({"deviceClassName": "none"}))], text);
    check(&world, &[one(cel("device.attributes['x'].y"))], "claim d/c: selector #0: CEL runtime error: no such key: y");
    check(
        &world,
        &[claim(vec![exactly("r", json!({}))], json!({"constraints": [{}]}))],
        "claim d/c, constraint #0: empty constraint (unsupported constraint type?)",
    );
    check(
        &world,
        &[one(json!({"count": 33}))],
        "claim d/c: number of requested devices 33 exceeds the claim limit of 32",
    );
}

#[test]
fn the_search_goes_back() {
    let model = |model: &str| json!({"attributes": {"model": {"string": model}}});
    let world = [slice(vec![device("a", model("x")), device("b", model("y")), device("c", model("y"))])];
    let same = json!({"constraints": [{"matchAttribute": format!("{DRIVER}/model")}]});
    check(&world, &[claim(vec![exactly("r", json!({"count": 2}))], same.clone())], "r=b r=c");
    check(&world, &[claim(vec![exactly("r", json!({})), exactly("q", json!({}))], same)], "r=b q=c");
    let differ = json!({"constraints": [{"distinctAttribute": format!("{DRIVER}/model"), "requests": ["r", "q"]}]});
    check(&world, &[claim(vec![exactly("r", json!({})), exactly("q", json!({}))], differ.clone())], "r=a q=b");
    let three = vec![exactly("r", json!({})), exactly("q", json!({})), exactly("free", json!({}))];
    check(&world, &[claim(three, differ)], "r=a q=b free=c");
    // The first request must leave `b` to the one that can have nothing else.
    let only_x = exactly("q", cel(&format!("device.attributes[\"{DRIVER}\"].model == 'x'")));
    check(&world, &[claim(vec![exactly("r", json!({})), only_x], json!({}))], "r=b q=a");
}

#[test]
fn alternatives_are_tried_in_order() {
    let world = [plain(&["a", "b"])];
    let first = |counts: &[i64]| {
        let alternative = |(index, count): (usize, &i64)| json!({"name": format!("s{index}"), "deviceClassName": "any", "count": count});
        let list: Vec<Value> = counts.iter().enumerate().map(alternative).collect();
        json!({"name": "r", "firstAvailable": list})
    };
    check(&world, &[claim(vec![first(&[3, 2, 1])], json!({}))], "r/s1=a r/s1=b");
    check(&world, &[claim(vec![first(&[3, 2, 1]), exactly("q", json!({}))], json!({}))], "r/s2=a q=b");
    check(&world, &[claim(vec![first(&[40, 1])], json!({}))], "r/s1=a");
    check(&world, &[claim(vec![first(&[3])], json!({}))], "none");
    let config = json!({"config": [
        {"requests": ["r/s0"], "opaque": {"driver": DRIVER, "parameters": {}}},
        {"requests": ["r/s1"], "opaque": {"driver": DRIVER, "parameters": {}}},
    ]});
    let result = allocate_with(&world, &[claim(vec![first(&[3, 1])], config)], &Taken::default()).unwrap().unwrap();
    let config = result[0].devices.as_ref().unwrap().config.as_ref().unwrap();
    assert_eq!(config.iter().map(|config| config.requests.clone().unwrap()).collect::<Vec<_>>(), [["r/s1"]]);
}

#[test]
fn what_others_have_is_left_alone() {
    let world = [plain(&["a", "b"])];
    let first = allocate_with(&world, &[one(json!({}))], &Taken::default()).unwrap().unwrap();
    let mut taken = Taken::default();
    taken.add(&first[0]);
    assert_eq!(shown(allocate_with(&world, &[one(json!({}))], &taken)), "r=b");
    assert_eq!(shown(allocate_with(&world, &[one(json!({"allocationMode": "All"}))], &taken)), "none");
    let admin = one(json!({"allocationMode": "All", "adminAccess": true}));
    let all = allocate_with(&world, &[admin], &taken).unwrap().unwrap();
    assert!(all[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0].admin_access == Some(true));
    let mut by_admin = Taken::default();
    by_admin.add(&all[0]);
    assert_eq!(shown(allocate_with(&world, &[one(json!({"count": 2}))], &by_admin)), "r=a r=b");
}

#[test]
fn taints_need_tolerations() {
    let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
    let world = [slice(vec![device("a", taint("NoSchedule")), device("b", taint("None"))])];
    check(&world, &[one(json!({}))], "r=b");
    check(&world, &[one(json!({"allocationMode": "All"}))], "none");
    for (toleration, expected) in [
        (json!({"key": "k", "operator": "Exists"}), "r=a"),
        (json!({"operator": "Exists"}), "r=a"),
        (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), "r=a"),
        (json!({"key": "k", "operator": "Equal", "value": "w"}), "r=b"),
        (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), "r=b"),
    ] {
        check(&world, &[one(json!({"tolerations": [toleration]}))], expected);
    }
}

#[test]
fn devices_are_where_they_are() {
    let zone = |zone: &str| json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]});
    let placed = |place: Value| {
        let mut world = plain(&["a"]);
        let spec = world["spec"].as_object_mut().unwrap();
        spec.remove("nodeName");
        spec.extend(place.as_object().unwrap().clone());
        [world]
    };
    check(&placed(json!({"nodeName": "other"})), &[one(json!({}))], "none");
    check(&placed(json!({"allNodes": true})), &[one(json!({}))], "r=a");
    check(&placed(json!({"nodeSelector": zone("here")})), &[one(json!({}))], "r=a");
    check(&placed(json!({"nodeSelector": zone("there")})), &[one(json!({}))], "none");
    let each = json!({"perDeviceNodeSelection": true, "devices": [
        {"name": "a", "nodeName": "other"}, {"name": "b", "nodeSelector": zone("there")},
        {"name": "c", "nodeSelector": zone("here")}, {"name": "e", "allNodes": true}]});
    check(&placed(each), &[one(json!({"count": 2}))], "r=c r=e");
    let selector = |world: &[Value]| {
        let result = allocate_with(world, &[one(json!({}))], &Taken::default()).unwrap().unwrap();
        serde_json::to_value(&result[0].node_selector).unwrap()
    };
    assert_eq!(selector(&placed(json!({"allNodes": true}))), Value::Null);
    assert_eq!(selector(&placed(json!({"nodeSelector": zone("here")}))), zone("here"));
    let only =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
    assert_eq!(selector(&[plain(&["a"])]), only);
}

#[test]
fn pools_must_be_whole() {
    let incomplete = with(plain(&["a"]), "/spec/pool/resourceSliceCount", json!(2));
    check(std::slice::from_ref(&incomplete), &[one(json!({}))], "none");
    let text =
        "claim d/c, request r: asks for all devices, but resource pool gpu.example.com/p is currently being updated";
    check(std::slice::from_ref(&incomplete), &[one(json!({"allocationMode": "All"}))], text);
    let newer = with(with(plain(&["b"]), "/spec/pool/generation", json!(2)), "/metadata/name", json!("t"));
    check(&[plain(&["a"]), newer.clone()], &[one(json!({}))], "r=b");
    let elsewhere = with(newer, "/spec/nodeName", json!("other"));
    check(&[plain(&["a"]), elsewhere], &[one(json!({}))], "none");
    check(&[plain(&["a", "a"])], &[one(json!({}))], "invalid resource pools were encountered");
    let two = |name: &str, device: &str| {
        with(with(plain(&[device]), "/spec/pool/resourceSliceCount", json!(2)), "/metadata/name", json!(name))
    };
    check(&[two("t", "b"), two("s", "a")], &[one(json!({"count": 2}))], "r=a r=b");
}

#[test]
fn parts_of_one_thing_share_its_counters() {
    let part = |name: &str, amount: &str| {
        device(name, json!({"consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": amount}}}]}))
    };
    let sets = json!({"metadata": {"name": "t"}, "spec": {"driver": DRIVER, "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 2},
        "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]}});
    let parts = vec![part("whole", "40Gi"), part("half-0", "20Gi"), part("half-1", "20Gi")];
    let world = [with(slice(parts), "/spec/pool/resourceSliceCount", json!(2)), sets];
    check(&world, &[one(json!({}))], "r=whole");
    check(&world, &[one(json!({"count": 2}))], "r=half-0 r=half-1");
    check(&world, &[one(json!({"count": 3}))], "none");
    let mut taken = Taken::default();
    let half = one(cel("false || true"));
    taken.add(&allocate_with(&world, &[half], &taken).unwrap().unwrap()[0]);
    assert_eq!(shown(allocate_with(&world, &[one(json!({}))], &taken)), "none", "the whole is given away");
    let unknown = slice(vec![part("whole", "1")]);
    check(&[unknown], &[one(json!({}))], "invalid resource pools were encountered");
}

#[test]
fn shared_devices_give_parts_of_their_capacity() {
    let policy = json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi", "max": "4Gi"}});
    let shared = json!({"allowMultipleAllocations": true,
        "capacity": {"memory": {"value": "6Gi", "requestPolicy": policy}}});
    let world = [slice(vec![device("a", shared)])];
    let asking = |amount: &str| one(json!({"capacity": {"requests": {"memory": amount}}}));
    check(&world, &[asking("4Gi"), asking("2Gi")], "r=a | r=a");
    check(&world, &[asking("4Gi"), asking("2049Mi")], "none");
    check(&world, &[asking("5Gi")], "none");
    check(&world, &[one(json!({"capacity": {"requests": {"unknown": "1"}}}))], "none");
    let result = allocate_with(&world, &[asking("1500Mi")], &Taken::default()).unwrap().unwrap();
    let given = &result[0].devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(given.share_id.as_deref(), Some("share"));
    assert_eq!(given.consumed_capacity.as_ref().unwrap()["memory"].0, (2i64 << 30).to_string());
    let mut taken = Taken::default();
    taken.add(&result[0]);
    assert_eq!(shown(allocate_with(&world, &[asking("4Gi")], &taken)), "r=a");
    taken.add(&result[0]);
    assert_eq!(shown(allocate_with(&world, &[asking("4Gi")], &taken)), "none");
}

#[test]
fn parameters_of_classes_and_claims_are_handed_on() {
    let world = [slice(vec![
        device("a", json!({"attributes": {"fast": {"bool": true}}})),
        device("b", json!({"attributes": {"fast": {"bool": true}}})),
    ])];
    let opaque = json!({"driver": DRIVER, "parameters": {"own": 1}});
    let requests =
        vec![exactly("r", json!({"deviceClassName": "fast"})), exactly("q", json!({"deviceClassName": "fast"}))];
    let config = json!({"config": [{"opaque": opaque}, {"requests": ["q"], "opaque": opaque}]});
    let result = allocate_with(&world, &[claim(requests, config)], &Taken::default()).unwrap().unwrap();
    let config = result[0].devices.as_ref().unwrap().config.as_ref().unwrap();
    let shown: Vec<String> = config
        .iter()
        .map(|config| format!("{} {:?}", config.source, config.requests.clone().unwrap_or_default()))
        .collect();
    assert_eq!(shown, [r#"FromClass ["r", "q"]"#, "FromClaim []", r#"FromClaim ["q"]"#]);
}

#[test]
fn a_search_without_end_is_given_up() {
    // Thirty devices that all match, and a constraint that only fails at the end of each attempt.
    let numbered = |index: usize| device(&format!("d{index}"), json!({"attributes": {"index": {"int": index / 2}}}));
    let world = [slice((0..60).map(numbered).collect())];
    let requests =
        (0..16).map(|index| exactly(&format!("r{index}"), json!({}))).chain([exactly("never", cel("false"))]);
    let text = "timed out trying to allocate devices";
    check(&world, &[claim(requests.collect(), json!({}))], text);
}
