//! `matchLabelKeys` and `mismatchLabelKeys` of pod affinity and of topology spread: what they stand for becomes part of the
//! selector beside them when the pod is made (KEP-3633, KEP-3243), so that schedulers read selectors alone.
//!
//! Invariant: a term without a selector matches nothing, and stays as it is.

use kedge_meta::FieldError;
use serde_json::{Map, Value, json};

use crate::formats;
use crate::path::Path;
use crate::value::{at, child, entries, fill, items, items_mut, map, text, texts};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds to the selectors of a new pod what its label keys mean.
pub(crate) fn merge_label_keys(pod: &mut Value) {
    let Some(labels) = map(pod, &["metadata", "labels"]).cloned() else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        for term in items_mut(pod, &["spec", "affinity", kind, REQUIRED]) {
            merge(term, &labels);
        }
        for weighted in items_mut(pod, &["spec", "affinity", kind, PREFERRED]) {
            if let Some(term) = child(weighted, "podAffinityTerm") {
                merge(term, &labels);
            }
        }
    }
    for constraint in items_mut(pod, &["spec", "topologySpreadConstraints"]) {
        merge(constraint, &labels);
    }
}

fn merge(term: &mut Value, labels: &Map<String, Value>) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in texts(term, &[field]) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() || at(term, &["labelSelector"]).is_none() {
        return;
    }
    let Some(selector) = child(term, "labelSelector") else { return };
    fill(selector, "matchExpressions", json!([]));
    if let Some(expressions) = child(selector, "matchExpressions").and_then(Value::as_array_mut) {
        expressions.extend(added);
    }
}

/// What is wrong with the label keys of a term, after they became part of its selector.
pub(super) fn label_key_errors(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let selector = at(term, &["labelSelector"]);
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(field);
        if selector.is_none() && !items(term, &[field]).is_empty() {
            path.forbidden(errors, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in texts(term, &[field]).enumerate() {
            path.index(index).check(errors, key, formats::qualified_name(key));
        }
    }
    let position = |wanted: &str| texts(term, &["matchLabelKeys"]).position(|key| key == wanted);
    if let Some(selector) = selector {
        let mut seen: Vec<&str> = entries(selector, &["matchLabels"]).map(|(key, _)| key.as_str()).collect();
        for requirement in items(selector, &["matchExpressions"]) {
            let key = text(requirement, &["key"]);
            if let Some(index) = position(key).filter(|_| seen.contains(&key)) {
                path.index(index).invalid(errors, key, "exists in both matchLabelKeys and labelSelector");
            }
            seen.push(key);
        }
    }
    for (index, key) in texts(term, &["matchLabelKeys"]).enumerate() {
        if texts(term, &["mismatchLabelKeys"]).any(|other| other == key) {
            let why = "exists in both matchLabelKeys and mismatchLabelKeys";
            path.child("matchLabelKeys").index(index).invalid(errors, key, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_part_of_the_selector() {
        let term = || {
            json!({"labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash", "absent"],
                "mismatchLabelKeys": ["tenant"]})
        };
        let mut pod = json!({"metadata": {"labels": {"app": "web", "hash": "1", "tenant": "a"}}, "spec": {
            "affinity": {"podAffinity": {REQUIRED: [term()]}, "podAntiAffinity": {PREFERRED: [{"podAffinityTerm": term()}]}},
            "topologySpreadConstraints": [{"matchLabelKeys": ["hash"], "labelSelector": {}}, {"matchLabelKeys": ["hash"]}]}});
        merge_label_keys(&mut pod);
        let merged = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "hash", "operator": "In", "values": ["1"]}, {"key": "tenant", "operator": "NotIn", "values": ["a"]}]});
        let affinity = &pod["spec"]["affinity"];
        assert_eq!(affinity["podAffinity"][REQUIRED][0]["labelSelector"], merged);
        assert_eq!(affinity["podAntiAffinity"][PREFERRED][0]["podAffinityTerm"]["labelSelector"], merged);
        let spread = &pod["spec"]["topologySpreadConstraints"];
        let expressions = json!([{"key": "hash", "operator": "In", "values": ["1"]}]);
        assert_eq!(spread[0]["labelSelector"], json!({"matchExpressions": expressions}));
        assert_eq!(spread[1].get("labelSelector"), None, "what matches nothing stays so");
    }

    #[test]
    fn keys_are_checked() {
        let check = |term: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            label_key_errors(&term, &Path::root("term"), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{term}");
        };
        let hash = json!({"key": "hash", "operator": "In", "values": ["1"]});
        check(json!({"labelSelector": {"matchExpressions": [hash]}, "matchLabelKeys": ["hash"]}), &[]);
        check(
            json!({"matchLabelKeys": ["hash"], "mismatchLabelKeys": ["a"]}),
            &[
                "term.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                "term.mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ],
        );
        let both = "term[0]: Invalid value: \"hash\": exists in both matchLabelKeys and labelSelector";
        check(json!({"labelSelector": {"matchExpressions": [hash, hash]}, "matchLabelKeys": ["hash"]}), &[both]);
        check(
            json!({"labelSelector": {"matchLabels": {"hash": "2"}, "matchExpressions": [hash]}, "matchLabelKeys": ["hash"]}),
            &[both],
        );
        check(
            json!({"labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]}),
            &["term.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys"],
        );
    }
}
