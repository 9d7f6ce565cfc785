//! One device of a ResourceSlice: what it is, how much it holds, where it is, and what it draws on.

use kedge_meta::{FieldError, Quantity};
use serde_json::Value;

use super::names::{self, each, each_once};
use super::policy::policy_errors;
use crate::formats;
use crate::path::Path;
use crate::pod_spec::node_selector_errors;
use crate::value::{at, entries, is_set, items, map, text};

const MOST_FACTS: usize = 32;
const MOST_TAINTS: usize = 16;
const MOST_CONSUMED: usize = 2;
const LONGEST_VALUE: usize = 64;
const MOST_CONDITIONS: usize = 4;

/// What is wrong with a device; `by_device` says that each of them tells where it is.
pub(super) fn device_errors(device: &Value, by_device: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    names::label(&path.child("name"), text(device, &["name"]), errors);
    let count = |field: &str| map(device, &[field]).map_or(0, serde_json::Map::len);
    let total = count("attributes") + count("capacity");
    if total > MOST_FACTS {
        let why = format!("the total number of attributes and capacities must not exceed {MOST_FACTS}");
        path.invalid(errors, total, &why);
    }
    for (name, attribute) in entries(device, &["attributes"]) {
        let list = path.child("attributes");
        names::qualified_name(&list.key(name), name, errors);
        attribute_errors(attribute, &list.key(name), errors);
    }
    let shared = at(device, &["allowMultipleAllocations"]) == Some(&Value::Bool(true));
    for (name, capacity) in entries(device, &["capacity"]) {
        let list = path.child("capacity");
        names::qualified_name(&list.key(name), name, errors);
        let at_name = list.key(name);
        let amount = text(capacity, &["value"]);
        if let Some(policy) = at(capacity, &["requestPolicy"]) {
            let path = at_name.child("requestPolicy");
            match shared {
                true => policy_errors(policy, amount, &path, errors),
                false => path.forbidden(errors, "allowMultipleAllocations must be true"),
            }
        }
        if amount.parse::<Quantity>().is_err() {
            at_name.child("value").required(errors, "");
        }
    }
    each(device, "taints", path, MOST_TAINTS, errors, taint_errors);
    let set = |consumed: &Value| text(consumed, &["counterSet"]).to_owned();
    each_once(device, "consumesCounters", path, (MOST_CONSUMED, set), errors, consumed_errors);
    place_errors(device, by_device, path, errors);
    binding_errors(device, path, errors);
}

fn attribute_errors(attribute: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = entries(attribute, &[]).filter(|(_, value)| !value.is_null()).count();
    if text(attribute, &["string"]).len() > LONGEST_VALUE {
        path.child("string").too_long(errors, LONGEST_VALUE);
    }
    if let Some(version) = at(attribute, &["version"]).and_then(Value::as_str) {
        if !is_semantic_version(version) {
            path.child("version").invalid(errors, version, "must be a string compatible with semver.org spec 2.0.0");
        }
        if version.len() > LONGEST_VALUE {
            path.child("version").too_long(errors, LONGEST_VALUE);
        }
    }
    match given {
        0 => path.invalid(errors, "", "exactly one value must be specified"),
        1 => {}
        _ => path.invalid(errors, attribute.clone(), "exactly one value must be specified"),
    }
}

/// Whether a text is a version of semver.org 2.0.0.
fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_release = |part: &str| is_word(part) && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_release))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

fn taint_errors(taint: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (key, value) = (text(taint, &["key"]), text(taint, &["value"]));
    path.child("key").check(errors, key, formats::qualified_name(key));
    if !value.is_empty() {
        path.child("value").check(errors, value, formats::label_value(value));
    }
    let effect = text(taint, &["effect"]);
    path.child("effect").required_one_of(errors, effect, &["NoExecute", "NoSchedule", "None"]);
}

fn consumed_errors(consumed: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(consumed, &["counterSet"]) {
        "" => path.child("counterSet").required(errors, ""),
        name => names::label(&path.child("counterSet"), name, errors),
    }
    if !is_set(consumed, &["counters"]) {
        path.child("counters").required(errors, "");
    }
    for (name, _) in entries(consumed, &["counters"]) {
        names::label(&path.child("counters"), name, errors);
    }
}

fn place_errors(device: &Value, by_device: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const FIELDS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    if !by_device {
        if FIELDS.iter().any(|field| at(device, &[field]).is_some()) {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                       true in the ResourceSlice spec";
            path.invalid(errors, Value::Null, why);
        }
        return;
    }
    let mut set = Vec::new();
    match at(device, &["nodeName"]).and_then(Value::as_str) {
        Some("") => path.child("nodeName").invalid(errors, "", "must not be empty"),
        Some(node) => {
            set.push("`nodeName`");
            path.child("nodeName").check(errors, node, formats::subdomain(node));
        }
        None => {}
    }
    if let Some(selector) = at(device, &["nodeSelector"]) {
        set.push("`nodeSelector`");
        node_selector_errors(selector, &path.child("nodeSelector"), errors);
    }
    match at(device, &["allNodes"]).and_then(Value::as_bool) {
        Some(true) => set.push("`allNodes`"),
        Some(false) => path.child("allNodes").invalid(errors, false, "must be either unset or set to true"),
        None => {}
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
               set to true in the ResourceSlice spec";
    match set.len() {
        0 => path.required(errors, why),
        1 => {}
        _ => path.invalid(errors, format!("{{{}}}", set.join(", ")), why),
    }
}

/// Conditions that must, and that must not, become true before a pod is bound: both or neither.
fn binding_errors(device: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const LISTS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for field in LISTS {
        each(device, field, path, MOST_CONDITIONS, errors, |condition, path, errors| {
            let name = condition.as_str().unwrap_or_default();
            path.check(errors, name, formats::qualified_name(name));
        });
    }
    let given = LISTS.map(|field| !items(device, &[field]).is_empty());
    match given {
        [true, false] => {
            path.child(LISTS[1]).invalid(
                errors,
                Value::Null,
                "bindingFailureConditions are required to use bindingConditions",
            );
        }
        [false, true] => {
            path.child(LISTS[0]).invalid(
                errors,
                Value::Null,
                "bindingConditions are required to use bindingFailureConditions",
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for (text, expected) in [
            ("1.2.3", true),
            ("0.0.0-alpha.1+build.7", true),
            ("1.2.3-0a", true),
            ("1.2", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
            ("1.2.3+", false),
            ("v1.2.3", false),
        ] {
            assert_eq!(is_semantic_version(text), expected, "{text}");
        }
    }
}
