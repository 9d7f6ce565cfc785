//! Strategic merge patch: a merge patch that knows which lists merge, by which key, and has directives.
//!
//! Directives: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>` and
//! `$retainKeys`. The invariant: no directive and no null of the patch comes out in the result.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Schema, Shape};

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_LIST: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ORDER: &str = "invalid patch format of setElementOrder list";

/// Applies `patch` to `target`, an object of the given type.
pub fn strategic_merge_patch(target: Value, patch: Value, schema: Schema<'_>) -> Result<Value, PatchError> {
    if matches!(schema.shape(), Shape::Untyped) {
        return Err(malformed("strategic merge patch format is not supported"));
    }
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_object(target, patch, schema).map(Value::Object),
        _ => Err(malformed("invalid JSON document")),
    }
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

fn no_merge_key(item: &Object, key: &str) -> PatchError {
    let item = Value::Object(item.clone());
    PatchError::Contradictory(format!("map: {item} does not contain declared merge key: {key}"))
}

fn child<'a>(schema: Schema<'a>, name: &str) -> Schema<'a> {
    match schema.shape() {
        Shape::Struct(fields) => fields.field(name).map_or(Schema::untyped(), |(_, field)| field),
        Shape::Map(values) => values,
        _ => Schema::untyped(),
    }
}

fn merge_object(mut original: Object, mut patch: Object, schema: Schema<'_>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                let shown = Value::Object(patch);
                Err(PatchError::Contradictory(format!("unknown patch type: {directive} in map: {shown}")))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, change) in patch {
        merge_entry(&mut original, key, change, schema)?;
    }
    Ok(original)
}

fn merge_entry(original: &mut Object, key: String, change: Value, schema: Schema<'_>) -> Result<(), PatchError> {
    if key.starts_with(DELETE_FROM_LIST) {
        return delete_from_list(original, &key, change);
    }
    if change.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let field = child(schema, &key);
    let merged = match (original.remove(&key), change) {
        (Some(Value::Object(before)), Value::Object(change)) if !field.patch_replaces() => {
            Some(Value::Object(merge_object(before, change, field)?))
        }
        (Some(Value::Array(before)), Value::Array(change)) if field.patch_merges() => {
            Some(Value::Array(merge_list(before, change, field)?))
        }
        (_, Value::Array(change)) => without_directives(Value::Array(change)),
        (_, change) => without_directives(change),
    };
    if let Some(merged) = merged {
        original.insert(key, merged);
    }
    Ok(())
}

/// What is new comes in without nulls and directives; an object that is only a directive does not come in at all.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(object) if object.contains_key(DIRECTIVE) => None,
        Value::Object(object) => {
            let is_directive =
                |key: &str| key == RETAIN_KEYS || key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
            let kept = object.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            let kept = kept.filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let keys = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => keys,
        Some(_) => return Err(malformed(BAD_RETAIN_KEYS)),
    };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |name: &str| keys.contains(name);
    let set = patch
        .iter()
        .filter(|(key, value)| !value.is_null() && !key.starts_with(DELETE_FROM_LIST) && !key.starts_with(SET_ORDER));
    if set.into_iter().any(|(key, _)| !listed(key)) {
        return Err(malformed(BAD_RETAIN_KEYS));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

fn delete_from_list(original: &mut Object, directive: &str, change: Value) -> Result<(), PatchError> {
    let field = extract_field(directive, DELETE_FROM_LIST).ok_or_else(|| malformed(BAD_LIST))?;
    let Value::Array(unwanted) = change else { return Err(malformed(BAD_LIST)) };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        let unwanted = Places::of(&unwanted, None);
        list.retain(|item| unwanted.find(item).is_none());
    }
    Ok(())
}

fn extract_field<'k>(directive: &'k str, prefix: &str) -> Option<&'k str> {
    directive.strip_prefix(prefix)?.strip_prefix('/')
}

/// Lists for which the patch says the order of its items.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, schema: Schema<'_>) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(malformed(BAD_ORDER)) };
        let name = extract_field(&directive, SET_ORDER).ok_or_else(|| malformed(BAD_ORDER))?;
        let field = child(schema, name);
        let change = match patch.remove(name) {
            None => None,
            Some(Value::Array(change)) => Some(change),
            Some(_) => return Err(malformed(BAD_ORDER)),
        };
        let key = field.patch_key();
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let before = match original.remove(name) {
            None => None,
            Some(Value::Array(before)) => Some(before),
            Some(_) => return Err(malformed(BAD_ORDER)),
        };
        let merged = match (before.clone(), change) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(before), Some(change)) if field.patch_merges() => merge_list(before, change, field)?,
            (Some(_), Some(change)) => change,
        };
        let ordered = arrange(merged, &order, &before.unwrap_or_default(), key);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// The items of the patch must stand in the order that the directive gives.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in change.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|ordered| same(item, ordered, key)) {
            let (shown, order) = (Value::from(change), Value::from(order));
            return Err(PatchError::Contradictory(format!(
                "The order in patch list:\n{shown}\n doesn't match {SET_ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn same(left: &Value, right: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        None => left == right,
    }
}

fn merge_list(before: Vec<Value>, change: Vec<Value>, field: Schema<'_>) -> Result<Vec<Value>, PatchError> {
    check_elements(&before, &change)?;
    let items = match field.shape() {
        Shape::List(items) => items,
        _ => Schema::untyped(),
    };
    if !before.iter().chain(&change).any(Value::is_object) {
        return Ok(merge_scalars(before, change));
    }
    let Some(key) = field.patch_key() else {
        return Err(PatchError::Contradictory("cannot merge lists without merge key for struct".to_owned()));
    };
    merge_maps(before, change, key, items)
}

/// The items of both lists must be of one kind.
fn check_elements(before: &[Value], change: &[Value]) -> Result<(), PatchError> {
    let kinds = before.iter().chain(change).map(crate::leaf::go_kind);
    let mut first = None;
    for kind in kinds {
        if kind == "array" {
            return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
        }
        if *first.get_or_insert(kind) != kind {
            let shown = Value::from(vec![Value::from(before), Value::from(change)]);
            return Err(PatchError::Contradictory(format!("list element types are not identical: {shown}")));
        }
    }
    Ok(())
}

fn merge_scalars(before: Vec<Value>, change: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::with_capacity(before.len() + change.len());
    let both = before.iter().chain(&change);
    let merged = both.filter(|item| seen.insert(item.to_string())).cloned().collect();
    arrange(merged, &change, &before, None)
}

fn merge_maps(
    mut before: Vec<Value>,
    change: Vec<Value>,
    key: &str,
    items: Schema<'_>,
) -> Result<Vec<Value>, PatchError> {
    let server_order = before.clone();
    let mut unwanted = HashSet::new();
    let mut wanted = Vec::new();
    let mut replaces = false;
    for item in change {
        let Value::Object(item) = item else { continue };
        let Some(directive) = item.get(DIRECTIVE) else {
            wanted.push(item);
            continue;
        };
        match directive.as_str() {
            Some("replace") => replaces = true,
            Some("delete") => {
                let gone = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                unwanted.insert(gone.to_string());
            }
            Some("merge") => {
                let text = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Contradictory(text.to_owned()));
            }
            _ => {
                let shown = Value::Object(item.clone());
                return Err(PatchError::Contradictory(format!("unknown patch type: {directive} in map: {shown}")));
            }
        }
    }
    if replaces {
        return Ok(wanted.into_iter().map(Value::Object).collect());
    }
    if !unwanted.is_empty() {
        before.retain(|candidate| candidate.get(key).is_none_or(|key| !unwanted.contains(&key.to_string())));
    }
    let order: Vec<Value> = wanted.iter().cloned().map(Value::Object).collect();
    let mut places = Places::of(&before, Some(key));
    for item in wanted {
        let wanted = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
        match places.by_text.get(&wanted.to_string()).and_then(|place| before.get_mut(*place)) {
            Some(Value::Object(found)) => {
                *found = merge_object(std::mem::take(found), item, items)?;
            }
            _ => {
                places.by_text.insert(wanted.to_string(), before.len());
                before.extend(without_directives(Value::Object(item)));
            }
        }
    }
    Ok(arrange(before, &order, &server_order, Some(key)))
}

/// Where the items of a list stand, by themselves or by their merge key: the first of those that are the same.
struct Places<'k> {
    key: Option<&'k str>,
    by_text: HashMap<String, usize>,
}

impl<'k> Places<'k> {
    fn of(list: &[Value], key: Option<&'k str>) -> Self {
        let mut by_text = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            if let Some(text) = Self::text(item, key) {
                by_text.entry(text).or_insert(place);
            }
        }
        Self { key, by_text }
    }

    fn find(&self, item: &Value) -> Option<usize> {
        self.by_text.get(&Self::text(item, self.key)?).copied()
    }

    fn text(item: &Value, key: Option<&str>) -> Option<String> {
        match key {
            Some(key) => item.get(key).map(Value::to_string),
            None => Some(item.to_string()),
        }
    }
}

/// Items that the patch names stand in the patch's order, the others in the server's; where the server's order says nothing
/// about two of them, the patch's item comes first.
fn arrange(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], key: Option<&str>) -> Vec<Value> {
    let (patch_order, server_order) = (Places::of(patch_order, key), Places::of(server_order, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| patch_order.find(item).is_some());
    named.sort_by_cached_key(|item| patch_order.find(item).unwrap_or(usize::MAX));
    others.sort_by_cached_key(|item| server_order.find(item).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for other in others {
        let before = server_order.find(&other);
        while let Some(item) = named.peek() {
            let after = server_order.find(item);
            if before.zip(after).is_some_and(|(before, after)| before < after) {
                break;
            }
            arranged.extend(named.next());
        }
        arranged.push(other);
    }
    arranged.extend(named);
    arranged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::facts::type_by_gvk;
    use crate::testing::any_json;

    fn deployment() -> Schema<'static> {
        Schema::of(type_by_gvk("apps", "v1", "Deployment").unwrap())
    }

    fn pod() -> Schema<'static> {
        Schema::of(type_by_gvk("", "v1", "Pod").unwrap())
    }

    fn check(schema: Schema<'_>, target: Value, patch: Value, expected: Value) {
        let result = strategic_merge_patch(target, patch.clone(), schema).unwrap();
        assert_eq!(result, expected, "{patch}");
    }

    fn containers(list: Value) -> Value {
        json!({"spec": {"containers": list}})
    }

    #[test]
    fn lists_merge_by_key_and_keep_their_order() {
        let two = || containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        check(
            pod(),
            two(),
            containers(json!([{"name": "b", "image": "2"}])),
            containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])),
        );
        check(
            pod(),
            two(),
            containers(json!([{"name": "c", "image": "3"}])),
            containers(json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
        );
        check(
            pod(),
            two(),
            containers(json!([{"name": "a", "$patch": "delete"}])),
            containers(json!([{"name": "b", "image": "1"}])),
        );
        check(
            pod(),
            two(),
            containers(json!([{"$patch": "replace"}, {"name": "z"}])),
            containers(json!([{"name": "z"}])),
        );
        check(
            pod(),
            two(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "9"}]}}),
            containers(json!([{"name": "b", "image": "1"}, {"name": "a", "image": "9"}])),
        );
        check(
            pod(),
            two(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            containers(json!([{"name": "b", "image": "1"}, {"name": "a", "image": "1"}])),
        );
    }

    #[test]
    fn scalars_merge_and_are_deleted() {
        let target = || json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"nodeSelector": {"x": "y"}}});
        let with = |list: Value| json!({"metadata": {"finalizers": list}, "spec": {"nodeSelector": {"x": "y"}}});
        check(pod(), target(), json!({"metadata": {"finalizers": ["b", "c"]}}), with(json!(["a", "b", "c"])));
        check(pod(), target(), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), with(json!(["b"])));
        check(
            pod(),
            target(),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}}),
            with(json!(["c", "b"])),
        );
        check(
            pod(),
            target(),
            json!({"metadata": {"finalizers": null}}),
            json!({"metadata": {}, "spec": {"nodeSelector": {"x": "y"}}}),
        );
    }

    #[test]
    fn lists_without_a_strategy_are_replaced() {
        let target = containers(json!([{"name": "a", "args": ["1"], "command": ["x"]}]));
        let patch = containers(json!([{"name": "a", "args": ["2", "3"]}]));
        check(pod(), target, patch, containers(json!([{"name": "a", "args": ["2", "3"], "command": ["x"]}])));
    }

    #[test]
    fn directives_on_maps() {
        let strategy = |value: Value| json!({"spec": {"strategy": value}});
        let rolling = || strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
        check(
            deployment(),
            rolling(),
            strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
            strategy(json!({"type": "Recreate"})),
        );
        check(
            deployment(),
            rolling(),
            strategy(json!({"$patch": "replace", "type": "Recreate"})),
            strategy(json!({"type": "Recreate"})),
        );
        check(deployment(), rolling(), strategy(json!({"$patch": "delete"})), strategy(json!({})));
        check(
            deployment(),
            json!({}),
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": null}, {"name": "b", "$patch": "delete"}]}}}}),
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}}}),
        );
        let budget = Schema::of(type_by_gvk("policy", "v1", "PodDisruptionBudget").unwrap());
        check(
            budget,
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
            json!({"spec": {"selector": {"matchLabels": {"c": "d"}}}}),
            json!({"spec": {"selector": {"matchLabels": {"c": "d"}}}}),
        );
    }

    #[test]
    fn bad_patches_are_refused() {
        let check = |patch: Value, code: u16, expected: &str| {
            let target = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
            let error = strategic_merge_patch(target, patch, pod()).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.into_status().code, code);
        };
        check(json!([]), 400, "invalid JSON document");
        check(json!({"spec": {"$retainKeys": 1}}), 400, BAD_RETAIN_KEYS);
        check(json!({"spec": {"$retainKeys": ["a"], "b": 1}}), 400, BAD_RETAIN_KEYS);
        check(json!({"metadata": {"$deleteFromPrimitiveList": [1]}}), 400, BAD_LIST);
        check(json!({"spec": {"$setElementOrder/containers": 1}}), 400, BAD_ORDER);
        check(
            containers(json!([{"image": "b"}])),
            500,
            "map: {\"image\":\"b\"} does not contain declared merge key: name",
        );
        check(containers(json!([[1]])), 422, "lists of lists are not supported");
        check(json!({"spec": {"$patch": "spin"}}), 500, "unknown patch type: \"spin\" in map: {}");
        let untyped = strategic_merge_patch(json!({}), json!({}), Schema::untyped()).unwrap_err();
        assert_eq!(untyped.to_string(), "strategic merge patch format is not supported");
    }

    /// What upstream's documents say of lists that merge by a key: items of the patch change those of their key or come in,
    /// `$patch: delete` takes them out, all others stay; nobody is there twice.
    fn model(before: &[(String, u8)], change: &[(String, Option<u8>)]) -> Vec<(String, u8)> {
        let mut after: Vec<(String, u8)> = Vec::new();
        for (name, image) in before {
            match change.iter().find(|(changed, _)| changed == name) {
                Some((_, None)) => {}
                Some((_, Some(image))) => after.push((name.clone(), *image)),
                None => after.push((name.clone(), *image)),
            }
        }
        for (name, image) in change {
            if let (Some(image), false) = (image, before.iter().any(|(known, _)| known == name)) {
                after.push((name.clone(), *image));
            }
        }
        after.sort();
        after
    }

    proptest! {
        #[test]
        fn lists_become_what_the_model_says(
            before in prop::collection::btree_map("[a-e]", 0u8..3, 1..5),
            change in prop::collection::btree_map("[a-f]", prop::option::of(0u8..3), 0..5),
            finalizers in prop::collection::btree_set("[a-e]", 0..4), more in prop::collection::btree_set("[a-e]", 0..4),
            fewer in prop::collection::btree_set("[a-e]", 0..3), labels in any_json(), changed in any_json(),
        ) {
            let before: Vec<_> = before.into_iter().collect();
            let change: Vec<_> = change.into_iter().collect();
            let target = json!({"metadata": {"finalizers": finalizers, "annotations": labels},
                "spec": {"containers": before.iter().map(|(name, image)| json!({"name": name, "image": image}))
                    .collect::<Vec<_>>()}});
            let item = |(name, image): &(String, Option<u8>)| match image {
                Some(image) => json!({"name": name, "image": image}),
                None => json!({"name": name, "$patch": "delete"}),
            };
            let patch = json!({"metadata": {"finalizers": more, "$deleteFromPrimitiveList/finalizers": fewer,
                    "annotations": changed.clone()},
                "spec": {"containers": change.iter().map(item).collect::<Vec<_>>()}});
            let result = strategic_merge_patch(target, patch, pod()).unwrap();
            let mut list: Vec<(String, u8)> = result["spec"]["containers"].as_array().unwrap().iter()
                .map(|item| (item["name"].as_str().unwrap().to_owned(), item["image"].as_u64().unwrap() as u8)).collect();
            list.sort();
            prop_assert_eq!(list, model(&before, &change));
            let mut kept: Vec<String> = serde_json::from_value(result["metadata"]["finalizers"].clone()).unwrap();
            kept.sort();
            let both = finalizers.union(&more).cloned().collect::<std::collections::BTreeSet<_>>();
            let expected: Vec<String> = both.into_iter().filter(|name| !fewer.contains(name) || more.contains(name)).collect();
            prop_assert_eq!(kept, expected);
            let mut merged = labels;
            crate::patch::merge_patch(&mut merged, &changed);
            prop_assert_eq!(&result["metadata"]["annotations"], &merged, "where no list merges it is a merge patch");
        }

        #[test]
        fn applying_twice_changes_nothing_more(
            labels in any_json(), more in any_json(), finalizers in prop::collection::vec("[a-c]", 0..4),
            names in prop::collection::btree_set("[a-d]", 1..4), patched in prop::collection::btree_set("[a-d]", 1..4),
        ) {
            let item = |image: &'static str| move |name: &String| json!({"name": name, "image": image});
            let target = json!({"metadata": {"annotations": labels, "finalizers": finalizers},
                "spec": {"containers": names.iter().map(item("1")).collect::<Vec<_>>()}});
            let patch = json!({"metadata": {"annotations": more, "finalizers": ["b", "a"]},
                "spec": {"containers": patched.iter().map(item("2")).collect::<Vec<_>>()}});
            let once = strategic_merge_patch(target, patch.clone(), pod()).unwrap();
            let twice = strategic_merge_patch(once.clone(), patch, pod()).unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}
