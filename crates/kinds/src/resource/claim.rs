//! ResourceClaims and their templates: what is asked for never changes; what was allocated does not either, but can be
//! taken back.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::names::{self, each, each_once, own_name};
use super::selectors::selectors;
use super::{CLAIM_COLUMNS, NAME_AND_AGE, claim_row, name_and_age};
use crate::path::Path;
use crate::pod_spec::node_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::value::{at, fill, int, is_set, items, items_mut, text};
use crate::workload::SPEC;

/// Of resourceclaims.
pub(super) struct ResourceClaim;

/// Of resourceclaimtemplates.
pub(super) struct ResourceClaimTemplate;

const MOST_REQUESTS: usize = 32;
const MOST_CONSTRAINTS: usize = 32;
const MOST_CONFIGURATIONS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const MOST_TOLERATIONS: usize = 16;
const MOST_CONSUMERS: usize = 256;
const MOST_RESULTS: usize = 32;
const STATUS: Path<'static> = Path::root("status");

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            default_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        spec_errors(&object["spec"], &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        SPEC.immutable(errors, at(new, &["spec"]), at(old, &["spec"]));
    }

    fn prepare_subresource_update(&self, _subresource: &str, new: &mut Value, old: &Value) {
        forget_given_back(new, old);
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        status_errors(new, old, errors);
    }

    fn columns(&self) -> &[Column] {
        CLAIM_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        claim_row(object, now)
    }
}

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").and_then(|spec| spec.get_mut("spec")) {
            default_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        spec_errors(&object["spec"]["spec"], &SPEC.child("spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        SPEC.immutable(errors, at(new, &["spec"]), at(old, &["spec"]));
    }

    fn columns(&self) -> &[Column] {
        NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

/// What names a device of an allocation or of a report.
fn device_key(device: &Value) -> String {
    ["driver", "pool", "device", "shareID"].map(|field| text(device, &[field])).join("/")
}

/// Drops what is reported of devices that have been given back.
fn forget_given_back(new: &mut Value, old: &Value) {
    let allocated = |claim: &Value| -> BTreeSet<String> {
        items(claim, &["status", "allocation", "devices", "results"]).iter().map(device_key).collect()
    };
    let kept = allocated(new);
    let given_back: BTreeSet<String> = allocated(old).difference(&kept).cloned().collect();
    let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|device| !given_back.contains(&device_key(device)));
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

fn default_spec(spec: &mut Value) {
    for request in items_mut(spec, &["devices", "requests"]) {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        items_mut(request, &["firstAvailable"]).iter_mut().for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    fill(request, "allocationMode", "ExactCount");
    if text(request, &["allocationMode"]) == "ExactCount" {
        fill(request, "count", 1);
    }
    for toleration in items_mut(request, &["tolerations"]) {
        fill(toleration, "operator", "Equal");
    }
}

/// The names by which requests, and alternatives within them, can be referred to.
fn request_names(spec: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for request in items(spec, &["devices", "requests"]) {
        let own = text(request, &["name"]);
        names.insert(own.to_owned());
        let alternatives = items(request, &["firstAvailable"]).iter();
        names.extend(alternatives.map(|alternative| format!("{own}/{}", text(alternative, &["name"]))));
    }
    names
}

fn spec_errors(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.child("devices");
    let devices = &spec["devices"];
    let known = request_names(spec);
    each_once(devices, "requests", &path, (MOST_REQUESTS, own_name), errors, request_errors);
    each(devices, "constraints", &path, MOST_CONSTRAINTS, errors, |constraint, path, errors| {
        references(constraint, path, &known, errors);
        match (at(constraint, &["matchAttribute"]), at(constraint, &["distinctAttribute"])) {
            (Some(name), _) => {
                names::fully_qualified_name(&path.child("matchAttribute"), name.as_str().unwrap_or_default(), errors);
            }
            (None, Some(name)) => {
                let name = name.as_str().unwrap_or_default();
                names::fully_qualified_name(&path.child("distinctAttribute"), name, errors);
            }
            (None, None) => path.child("matchAttribute").required(errors, ""),
        }
    });
    each(devices, "config", &path, MOST_CONFIGURATIONS, errors, |config, path, errors| {
        references(config, path, &known, errors);
        names::configuration(config, path, errors);
    });
}

fn request_errors(request: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    names::label(&path.child("name"), text(request, &["name"]), errors);
    match (at(request, &["exactly"]), is_set(request, &["firstAvailable"])) {
        (None, false) => path.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            path.invalid(errors, Value::Null, why);
        }
        (Some(exactly), false) => wanted_errors(exactly, &path.child("exactly"), errors),
        (None, true) => {
            let key = (MOST_ALTERNATIVES, own_name);
            each_once(request, "firstAvailable", path, key, errors, |alternative, path, errors| {
                names::label(&path.child("name"), text(alternative, &["name"]), errors);
                wanted_errors(alternative, path, errors);
            });
        }
    }
}

fn wanted_errors(request: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    names::class_name(&path.child("deviceClassName"), text(request, &["deviceClassName"]), errors);
    selectors(request, None, path, errors);
    let count = int(request, &["count"]).unwrap_or_default();
    match text(request, &["allocationMode"]) {
        "All" if count != 0 => {
            path.child("count").invalid(errors, count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count <= 0 => path.child("count").invalid(errors, count, "must be greater than zero"),
        "ExactCount" => {}
        mode => path.child("allocationMode").one_of(errors, mode, &["All", "ExactCount"]),
    }
    each(request, "tolerations", path, MOST_TOLERATIONS, errors, toleration_errors);
}

fn toleration_errors(toleration: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (key, value) = (text(toleration, &["key"]), text(toleration, &["value"]));
    if !key.is_empty() {
        path.child("key").check(errors, key, crate::formats::qualified_name(key));
    }
    match text(toleration, &["operator"]) {
        "Exists" if !value.is_empty() => {
            path.child("value").invalid(errors, value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => {
            path.child("value").check(errors, value, crate::formats::label_value(value));
            if key.is_empty() {
                path.child("key").required(errors, "");
            }
        }
        operator => path.child("operator").one_of(errors, operator, &["Equal", "Exists"]),
    }
    let effect = text(toleration, &["effect"]);
    if !effect.is_empty() {
        path.child("effect").one_of(errors, effect, &["NoExecute", "NoSchedule", "None"]);
    }
}

/// What is wrong with references to requests.
fn references(object: &Value, path: &Path<'_>, known: &BTreeSet<String>, errors: &mut Vec<FieldError>) {
    let key = |name: &Value| name.as_str().unwrap_or_default().to_owned();
    each_once(object, "requests", path, (MOST_REQUESTS, key), errors, |name, path, errors| {
        reference(name.as_str().unwrap_or_default(), path, known, errors);
    });
}

fn reference(name: &str, path: &Path<'_>, known: &BTreeSet<String>, errors: &mut Vec<FieldError>) {
    let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if name.split('/').count() > 2 {
        return path.invalid(errors, name, why);
    }
    name.split('/').for_each(|part| names::label(path, part, errors));
    if !known.contains(name) {
        path.invalid(errors, name, why);
    }
}

fn status_errors(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (status, before) = (&new["status"], &old["status"]);
    let uid = |consumer: &Value| text(consumer, &["uid"]).to_owned();
    each_once(status, "reservedFor", &STATUS, (MOST_CONSUMERS, uid), errors, |consumer, path, errors| {
        for field in ["resource", "name", "uid"].into_iter().filter(|field| text(consumer, &[field]).is_empty()) {
            path.child(field).required(errors, "");
        }
    });
    let known = request_names(&new["spec"]);
    let allocated: Vec<String> = items(status, &["allocation", "devices", "results"]).iter().map(device_key).collect();
    each_once(status, "devices", &STATUS, (usize::MAX, device_key), errors, |reported, path, errors| {
        if !allocated.contains(&device_key(reported)) {
            path.invalid(errors, device_key(reported), "must be an allocated device in the claim");
        }
    });
    if is_set(status, &["reservedFor"]) {
        let path = STATUS.child("reservedFor");
        let known = items(before, &["reservedFor"]);
        let grows = items(status, &["reservedFor"]).iter().any(|consumer| !known.contains(consumer));
        if at(status, &["allocation"]).is_none() {
            path.forbidden(errors, "may not be specified when `allocated` is not set");
        } else if grows && is_set(new, &["metadata", "deletionTimestamp"]) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            path.forbidden(errors, why);
        }
    }
    let path = STATUS.child("allocation");
    match (at(status, &["allocation"]), at(before, &["allocation"])) {
        (Some(now), Some(then)) => path.immutable(errors, Some(now), Some(then)),
        (Some(now), None) => allocation_errors(now, &path, &known, errors),
        (None, _) => {}
    }
}

fn allocation_errors(allocation: &Value, path: &Path<'_>, known: &BTreeSet<String>, errors: &mut Vec<FieldError>) {
    let devices_path = path.child("devices");
    let devices = &allocation["devices"];
    each(devices, "results", &devices_path, MOST_RESULTS, errors, |result, path, errors| {
        reference(text(result, &["request"]), &path.child("request"), known, errors);
        crate::storage::driver_name(&path.child("driver"), text(result, &["driver"]), errors);
        names::pool_name(&path.child("pool"), text(result, &["pool"]), errors);
        names::label(&path.child("device"), text(result, &["device"]), errors);
    });
    each(devices, "config", &devices_path, 2 * MOST_CONFIGURATIONS, errors, |config, path, errors| {
        let source = text(config, &["source"]);
        path.child("source").required_one_of(errors, source, &["FromClaim", "FromClass"]);
        references(config, path, known, errors);
        names::configuration(config, path, errors);
    });
    if let Some(selector) = at(allocation, &["nodeSelector"]) {
        node_selector_errors(selector, &path.child("nodeSelector"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(devices: Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {"devices": devices}});
        ResourceClaim.default(&mut claim);
        claim
    }

    fn texts_of(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests_are_defaulted_and_checked() {
        let check = |devices: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            ResourceClaim.validate_create(&claim(devices), &mut errors);
            assert_eq!(texts_of(&errors), expected);
        };
        let one = json!({"name": "gpu", "exactly": {"deviceClassName": "a"}});
        let defaulted = claim(json!({"requests": [one]}));
        let exactly = json!({"deviceClassName": "a", "allocationMode": "ExactCount", "count": 1});
        assert_eq!(defaulted["spec"]["devices"]["requests"][0]["exactly"], exactly);
        check(json!({"requests": [one]}), &[]);
        check(json!({"requests": [one, one]}), &["spec.devices.requests[1]: Duplicate value: \"gpu\""]);
        let none = "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required";
        check(json!({"requests": [{"name": "gpu"}]}), &[none]);
        check(
            json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "", "allocationMode": "All", "count": 2}}]}),
            &[
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
                "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ],
        );
        let either = json!({"name": "gpu", "firstAvailable": [
            {"name": "big", "deviceClassName": "a"}, {"name": "small", "deviceClassName": "b", "count": -1}]});
        check(
            json!({"requests": [either]}),
            &["spec.devices.requests[0].firstAvailable[1].count: Invalid value: -1: must be greater than zero"],
        );
        let wrong =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        check(
            json!({"requests": [one], "constraints": [{"requests": ["gpu", "nic"], "matchAttribute": "a.io/x"}, {}]}),
            &[
                &format!("spec.devices.constraints[0].requests[1]: Invalid value: \"nic\": {wrong}"),
                "spec.devices.constraints[1].matchAttribute: Required value",
            ],
        );
        let bare = "spec.devices.constraints[0].matchAttribute: Invalid value: \"x\": must include a domain";
        check(json!({"requests": [one], "constraints": [{"matchAttribute": "x"}]}), &[bare]);
    }

    #[test]
    fn reports_go_with_their_devices() {
        let claim = |results: Value, devices: Value| json!({"status": {"allocation": {"devices": {"results": results}}, "devices": devices}});
        let [one, two] = ["one", "two"].map(|device| json!({"driver": "d.io", "pool": "p", "device": device}));
        let old = claim(json!([one, two]), json!([one, two]));
        let mut new = claim(json!([one]), json!([one, two]));
        forget_given_back(&mut new, &old);
        assert_eq!(new, claim(json!([one]), json!([one])));
        let mut none = json!({"status": {"devices": [one]}});
        forget_given_back(&mut none, &old);
        assert_eq!(none, json!({"status": {}}));
    }

    #[test]
    fn what_is_asked_for_and_allocated_stays() {
        let old = claim(json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "a"}}]}));
        let mut new = old.clone();
        new["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
        let mut errors = Vec::new();
        ResourceClaim.validate_update(&new, &old, &mut errors);
        assert!(texts_of(&errors)[0].ends_with("field is immutable"), "{errors:?}");

        let check = |status: Value, before: Value, expected: &[&str]| {
            let (mut new, mut prior) = (old.clone(), old.clone());
            new["status"] = status;
            prior["status"] = before;
            let mut errors = Vec::new();
            ResourceClaim.validate_subresource_update("status", &new, &prior, &mut errors);
            let texts = texts_of(&errors);
            assert_eq!(texts.len(), expected.len(), "{texts:?}");
            assert!(texts.iter().zip(expected).all(|(text, start)| text.starts_with(start)), "{texts:?}");
        };
        let allocation = |device: &str| json!({"devices": {"results": [{"request": "gpu", "driver": "d.io", "pool": "p/q", "device": device}]}});
        let consumer = json!([{"resource": "pods", "name": "p", "uid": "1"}]);
        check(json!({"allocation": allocation("gpu-0"), "reservedFor": consumer}), json!({}), &[]);
        check(json!({"reservedFor": consumer}), json!({}), &["status.reservedFor: Forbidden: may not be specified"]);
        check(
            json!({"allocation": allocation("gpu-1")}),
            json!({"allocation": allocation("gpu-0")}),
            &["status.allocation: Invalid value"],
        );
        check(json!({}), json!({"allocation": allocation("gpu-0")}), &[]);
        check(
            json!({"allocation": allocation("GPU"), "devices": [{"driver": "d.io", "pool": "p", "device": "x"}]}),
            json!({}),
            &["status.devices[0]: Invalid value", "status.allocation.devices.results[0].device: Invalid value"],
        );
    }
}
