//! A part of an object, merged into the object on behalf of nobody: what mutating admission policies do.

use serde_json::Value;

use super::merge::merge;
use super::typed_check;
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// An object with a part merged into it as server-side apply would, but with no owner. The part has to be of the object's
/// version and kind; the error is upstream's text: where it does not fit the schema, or where it gives some of what
/// belongs together as a whole (an atomic list, map or structure), since all else of that would be lost.
pub fn configure(live: &Value, part: &Value, schema: Schema<'_>) -> Result<Value, String> {
    if let Some(problem) = typed_check::check(part, schema) {
        return Err(format!("failed to convert patch object to typed object: {problem}"));
    }
    let mut atomics = Vec::new();
    find_atomics(part, schema, "", &mut atomics);
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"));
    }
    Ok(merge(live, part, schema))
}

fn find_atomics(value: &Value, schema: Schema<'_>, path: &str, found: &mut Vec<String>) {
    match (schema.shape(), value) {
        (Shape::Struct(fields), Value::Object(entries)) => {
            if schema.is_atomic() {
                found.push(path.to_owned());
            }
            for (name, value) in entries {
                if let Some((_, field)) = fields.field(name) {
                    find_atomics(value, field, &format!("{path}.{name}"), found);
                }
            }
        }
        (Shape::Map(_), Value::Object(_)) if schema.is_atomic() => found.push(path.to_owned()),
        (Shape::List(items), Value::Array(list)) => {
            if schema.list_type() == ListType::Atomic {
                found.push(path.to_owned());
            }
            for (index, item) in list.iter().enumerate() {
                find_atomics(item, items, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::type_by_gvk;

    #[test]
    fn parts_are_merged_unless_they_would_lose_something() {
        let schema = Schema::of(type_by_gvk("apps", "v1", "Deployment").unwrap());
        let check =
            |live: Value, part: Value, expected: Result<Value, &str>| match (configure(&live, &part, schema), expected)
            {
                (Ok(actual), Ok(expected)) => assert_eq!(actual, expected),
                (Err(actual), Err(expected)) => assert!(actual.contains(expected), "{actual}"),
                (actual, _) => panic!("{part}: {actual:?}"),
            };
        let of = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        check(
            json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1}}),
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {"replicas": 3}}),
            Ok(json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 3}})),
        );
        check(
            of(json!([{"name": "a", "image": "x"}])),
            of(json!([{"name": "a", "tty": true}, {"name": "b"}])),
            Ok(of(json!([{"name": "a", "image": "x", "tty": true}, {"name": "b"}]))),
        );
        check(
            of(json!([{"name": "a"}])),
            of(json!([{"name": "a", "args": ["x"]}])),
            Err("may not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].args"),
        );
        check(json!({}), json!({"spec": {"nothing": 1}}), Err(".spec.nothing"));
    }
}
