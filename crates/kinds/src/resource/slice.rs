//! ResourceSlices: the devices that a driver offers on a node, or on several.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::attributes::device_errors;
use super::names::{self, each_once, own_name};
use super::{SLICE_COLUMNS, slice_row};
use crate::formats;
use crate::path::Path;
use crate::pod_spec::node_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::value::{at, entries, fill, int, is_set, items, items_mut, text};
use crate::workload::SPEC;

/// Of resourceslices.
pub(super) struct ResourceSlice;

const MOST_DEVICES: usize = 128;
/// With taints or shared counters.
const MOST_COMPLEX_DEVICES: usize = 64;
const MOST_COUNTER_SETS: usize = 8;

impl Strategy for ResourceSlice {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for device in items_mut(object, &["spec", "devices"]) {
            for toleration in items_mut(device, &["tolerations"]) {
                fill(toleration, "operator", "Equal");
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        crate::storage::driver_name(&SPEC.child("driver"), text(spec, &["driver"]), errors);
        pool_errors(spec, errors);
        place_errors(spec, errors);
        if at(spec, &["sharedCounters"]).is_some() && at(spec, &["devices"]).is_some() {
            SPEC.invalid(errors, "", "only one of `sharedCounters` or `devices` is allowed");
        }
        let is_complex = |device: &Value| is_set(device, &["taints"]) || is_set(device, &["consumesCounters"]);
        let most = match items(spec, &["devices"]).iter().any(is_complex) {
            true => MOST_COMPLEX_DEVICES,
            false => MOST_DEVICES,
        };
        let by_device = at(spec, &["perDeviceNodeSelection"]) == Some(&Value::Bool(true));
        each_once(spec, "devices", &SPEC, (most, own_name), errors, |device, path, errors| {
            device_errors(device, by_device, path, errors);
        });
        each_once(spec, "sharedCounters", &SPEC, (MOST_COUNTER_SETS, own_name), errors, counter_set);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        let pool = SPEC.child("pool");
        const POOL: &[&str] = &["spec", "pool", "name"];
        pool.child("name").immutable(errors, at(new, POOL), at(old, POOL));
        for field in ["driver", "nodeName"] {
            SPEC.child(field).immutable(errors, at(new, &["spec", field]), at(old, &["spec", field]));
        }
    }

    fn fields(&self) -> &[&str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn columns(&self) -> &[Column] {
        SLICE_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        slice_row(object, now)
    }
}

fn pool_errors(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("pool");
    names::pool_name(&path.child("name"), text(spec, &["pool", "name"]), errors);
    let count = int(spec, &["pool", "resourceSliceCount"]).unwrap_or_default();
    if count <= 0 {
        path.child("resourceSliceCount").invalid(errors, count, "must be greater than zero");
    }
    let generation = int(spec, &["pool", "generation"]).unwrap_or_default();
    if generation < 0 {
        path.child("generation").invalid(errors, generation, "must be greater than or equal to zero");
    }
}

/// What is wrong with where the devices are.
fn place_errors(spec: &Value, errors: &mut Vec<FieldError>) {
    let mut set = Vec::new();
    if let Some(node) = at(spec, &["nodeName"]).and_then(Value::as_str) {
        match node {
            "" => SPEC.child("nodeName").invalid(errors, "", "must be either unset or set to a non-empty string"),
            node => {
                set.push("`nodeName`");
                SPEC.child("nodeName").check(errors, node, formats::subdomain(node));
            }
        }
    }
    if let Some(selector) = at(spec, &["nodeSelector"]) {
        set.push("`nodeSelector`");
        let path = SPEC.child("nodeSelector");
        node_selector_errors(selector, &path, errors);
        let terms = items(selector, &["nodeSelectorTerms"]);
        if terms.len() != 1 {
            let path = path.child("nodeSelectorTerms");
            path.invalid(errors, Value::from(terms.to_vec()), "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match at(spec, &[field]).and_then(Value::as_bool) {
            Some(true) => set.push(shown),
            Some(false) => SPEC.child(field).invalid(errors, false, "must be either unset or set to true"),
            None => {}
        }
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => SPEC.required(errors, why),
        1 => {}
        _ => SPEC.invalid(errors, format!("{{{}}}", set.join(", ")), &format!("{why}, but multiple fields are set")),
    }
}

fn counter_set(set: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(set, &["name"]) {
        "" => path.child("name").required(errors, ""),
        name => names::label(&path.child("name"), name, errors),
    }
    if !is_set(set, &["counters"]) {
        path.child("counters").required(errors, "");
    }
    for (name, _) in entries(set, &["counters"]) {
        names::label(&path.child("counters"), name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(extra: Value) -> Value {
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        let mut spec = json!({"driver": "d.io", "pool": pool});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"spec": spec})
    }

    fn check(extra: Value, expected: &[&str]) {
        let mut errors = Vec::new();
        ResourceSlice.validate_create(&slice(extra), &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slices_are_in_one_place() {
        let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        check(json!({"nodeName": "n"}), &[]);
        check(json!({}), &[&format!("spec: Required value: {why}")]);
        check(
            json!({"nodeName": "n", "allNodes": true}),
            &[&format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {why}, but multiple fields are set")],
        );
        let off = "spec.allNodes: Invalid value: false: must be either unset or set to true";
        check(json!({"nodeName": "n", "allNodes": false}), &[off]);
        check(
            json!({"nodeName": "n", "pool": {"name": "", "generation": -1}}),
            &[
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            ],
        );
        let mut errors = Vec::new();
        ResourceSlice.validate_update(&slice(json!({"nodeName": "n"})), &slice(json!({"nodeName": "m"})), &mut errors);
        assert_eq!(errors[0].to_string(), "spec.nodeName: Invalid value: \"n\": field is immutable");
    }

    #[test]
    fn devices_are_checked() {
        let on_node = |devices: Value| json!({"nodeName": "n", "devices": devices});
        check(
            on_node(
                json!([{"name": "gpu-0", "attributes": {"model": {"string": "x"}, "a.io/v": {"version": "1.2.3-a+b"}},
                              "capacity": {"memory": {"value": "1Gi"}}}]),
            ),
            &[],
        );
        check(on_node(json!([{"name": "a"}, {"name": "a"}])), &["spec.devices[1]: Duplicate value: \"a\""]);
        check(
            on_node(
                json!([{"name": "a", "attributes": {"m": {}, "v": {"version": "1.2"}, "x": {"int": 1, "bool": true}}}]),
            ),
            &[
                "spec.devices[0].attributes[m]: Invalid value: \"\": exactly one value must be specified",
                "spec.devices[0].attributes[v].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
                "spec.devices[0].attributes[x]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
            ],
        );
        let many: Vec<Value> = (0..129).map(|number| json!({"name": format!("d{number}")})).collect();
        check(on_node(json!(many)), &["spec.devices: Too many: 129: must have at most 128 items"]);
        let own = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                   in the ResourceSlice spec";
        check(
            on_node(json!([{"name": "a", "nodeName": "n"}])),
            &[&format!("spec.devices[0]: Invalid value: null: {own}")],
        );
        let missing = "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is \
                       required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        check(json!({"perDeviceNodeSelection": true, "devices": [{"name": "a"}]}), &[missing]);
        let taints = json!([{"key": "a", "effect": "Odd"}]);
        check(
            on_node(json!([{"name": "a", "taints": taints}])),
            &[
                "spec.devices[0].taints[0].effect: Unsupported value: \"Odd\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
            ],
        );
    }
}
