//! Managed fields on their way to a scale and back: who owns the replicas of an object owns those of its scale.
//!
//! Not how a scale is changed: plain writes and applies work on the scale as on any object. Invariant: entries that do not
//! own the replicas come back as they were.

use serde_json::Value;

use super::field_set::FieldSet;
use super::managers::{self, Manager};

const SCALE_VERSION: &str = "autoscaling/v1";
const SCALE_REPLICAS: [&str; 2] = ["spec", "replicas"];

/// The managed fields of the scale of an object whose replicas lie at `replicas`, in every version of its group.
pub fn managers_of_scale(parent: Option<&Value>, api_version: &str, replicas: &[&str]) -> Option<Value> {
    let mut owners = owners(parent, api_version);
    owners.retain(|manager| has(&manager.fields, replicas));
    for owner in &mut owners {
        owner.api_version = SCALE_VERSION;
        owner.fields = FieldSet::of_path(&SCALE_REPLICAS);
    }
    managers::encode(owners)
}

/// The managed fields of an object after its scale was changed, whose managed fields are `scale` now.
pub fn managers_after_scale(
    parent: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    replicas: &[&str],
) -> Option<Value> {
    let mut scale = managers::decode(scale).unwrap_or_default();
    scale.retain(|manager| has(&manager.fields, &SCALE_REPLICAS));
    let mut owners = owners(parent, api_version);
    for owner in owners.iter_mut().filter(|owner| has(&owner.fields, replicas)) {
        match scale.iter().position(|manager| is_same(manager, owner)) {
            Some(kept) => drop(scale.swap_remove(kept)),
            None => owner.fields = std::mem::take(&mut owner.fields).difference(&FieldSet::of_path(replicas)),
        }
    }
    owners.retain(|owner| !owner.fields.is_empty());
    for mut new in scale {
        new.api_version = api_version;
        new.fields = FieldSet::of_path(replicas);
        match owners.iter_mut().find(|owner| owner.is(&new)) {
            Some(owner) => owner.fields = std::mem::take(&mut owner.fields).union(new.fields),
            None => owners.push(new),
        }
    }
    managers::encode(owners)
}

/// The entries of the object's own group; others know no replicas.
fn owners<'a>(parent: Option<&'a Value>, api_version: &str) -> Vec<Manager<'a>> {
    let group = |api_version: &str| api_version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    let mut owners = managers::decode(parent).unwrap_or_default();
    owners.retain(|owner| group(owner.api_version) == group(api_version));
    owners
}

/// Whether an entry of the scale is this one of the object.
fn is_same(scale: &Manager<'_>, owner: &Manager<'_>) -> bool {
    (scale.name, scale.applied, scale.subresource) == (owner.name, owner.applied, owner.subresource)
}

fn has(fields: &FieldSet<'_>, path: &[&str]) -> bool {
    !fields.intersection(&FieldSet::of_path(path)).is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: &str, version: &str, fields: Value) -> Value {
        let mut entry = json!({"apiVersion": version, "fieldsType": "FieldsV1", "manager": manager,
            "operation": operation, "fieldsV1": fields});
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    fn replicas() -> Value {
        json!({"f:spec": {"f:replicas": {}}})
    }

    const PATH: [&str; 2] = ["spec", "replicas"];

    #[test]
    fn owners_of_replicas_own_the_scale() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:selector": {}}});
        let parent = json!([
            entry("one", "Apply", "", "apps/v1", both),
            entry("two", "Update", "", "apps/v1", json!({"f:spec": {"f:selector": {}}})),
            entry("three", "Update", "scale", "apps/v1beta2", replicas()),
            entry("four", "Update", "", "batch/v1", replicas()),
        ]);
        let scale = managers_of_scale(Some(&parent), "apps/v1", &PATH);
        let expected = json!([
            entry("one", "Apply", "", "autoscaling/v1", replicas()),
            entry("three", "Update", "scale", "autoscaling/v1", replicas()),
        ]);
        assert_eq!(scale, Some(expected));
        assert_eq!(managers_of_scale(None, "apps/v1", &PATH), None);
    }

    #[test]
    fn what_happened_to_the_scale_happens_to_the_object() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:selector": {}}});
        let parent = json!([entry("one", "Apply", "", "apps/v1", both.clone())]);
        let check = |scale: Value, expected: Value| {
            assert_eq!(managers_after_scale(Some(&parent), Some(&scale), "apps/v1", &PATH), Some(expected));
        };
        let one = entry("one", "Apply", "", "autoscaling/v1", replicas());
        check(json!([one.clone()]), parent.clone());
        let hpa = |version| entry("hpa", "Apply", "scale", version, replicas());
        let stolen = entry("one", "Apply", "", "apps/v1", json!({"f:spec": {"f:selector": {}}}));
        check(json!([hpa("autoscaling/v1")]), json!([hpa("apps/v1"), stolen]));
        check(json!([one, hpa("autoscaling/v1")]), json!([hpa("apps/v1"), parent[0]]));
        let only = json!([entry("one", "Update", "", "apps/v1", replicas())]);
        let after = managers_after_scale(Some(&only), Some(&json!([hpa("autoscaling/v1")])), "apps/v1", &PATH);
        assert_eq!(after, Some(json!([hpa("apps/v1")])), "who owns nothing any more is gone");
    }
}
