//! JSON merge patch, RFC 7386.

use serde_json::{Map, Value};

/// Applies `patch` to `target`.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, change) in patch {
        if change.is_null() {
            target.remove(key);
        } else if let Some(value) = target.get_mut(key) {
            merge_patch(value, change);
        } else {
            let mut value = Value::Null;
            merge_patch(&mut value, change);
            target.insert(key.clone(), value);
        }
    }
}

/// The smallest patch that makes `new` out of `old`. Null values in `new` cannot be expressed and are left out.
pub fn create_merge_patch(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), create_merge_patch(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::any_json;

    #[test]
    fn cases_of_rfc_7386() {
        let check = |target: Value, patch: Value, expected: Value| {
            let mut result = target.clone();
            merge_patch(&mut result, &patch);
            assert_eq!(result, expected, "{target} {patch}");
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"}));
        check(json!({"a": "b"}), json!({"a": null}), json!({}));
        check(json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}}));
        check(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
        check(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
        check(json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1}));
        check(json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"}));
        check(json!({"a": "foo"}), json!(null), json!(null));
    }

    /// The algorithm of RFC 7386, word for word.
    fn model(target: &Value, patch: &Value) -> Value {
        let Value::Object(changes) = patch else { return patch.clone() };
        let mut result = target.as_object().cloned().unwrap_or_default();
        for (name, value) in changes {
            match value {
                Value::Null => drop(result.remove(name)),
                value => {
                    let merged = model(result.get(name).unwrap_or(&Value::Null), value);
                    result.insert(name.clone(), merged);
                }
            }
        }
        Value::Object(result)
    }

    /// The patch with nulls at these names, at every level.
    fn with_nulls(patch: Value, names: &[String]) -> Value {
        let Value::Object(patch) = patch else { return patch };
        let nulls = names.iter().map(|name| (name.clone(), Value::Null));
        Value::Object(patch.into_iter().map(|(name, value)| (name, with_nulls(value, names))).chain(nulls).collect())
    }

    proptest! {
        #[test]
        fn a_patch_does_what_the_rfc_says(
            target in any_json(), patch in any_json(), removed in prop::collection::vec("[a-d]", 0..3),
        ) {
            let patch = with_nulls(patch, &removed);
            let mut result = target.clone();
            merge_patch(&mut result, &patch);
            prop_assert_eq!(result, model(&target, &patch));
        }

        #[test]
        fn a_created_patch_leads_to_its_target(old in any_json(), new in any_json()) {
            let mut result = old.clone();
            merge_patch(&mut result, &create_merge_patch(&old, &new));
            prop_assert_eq!(result, new);
        }

        #[test]
        fn applying_twice_changes_nothing_more(old in any_json(), patch in any_json()) {
            let mut once = old;
            merge_patch(&mut once, &patch);
            let mut twice = once.clone();
            merge_patch(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
