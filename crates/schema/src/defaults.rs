//! Defaults that stand in the schema itself.
//!
//! Only those that say more than Go's zero value, and only where the parent is there. Defaults that depend on other fields
//! are code and live with the kinds. The invariant: a value that is set never changes.

use serde_json::Value;

use crate::schema::{Schema, Shape};

/// Sets what is absent and has a default, at every depth.
pub fn apply_schema_defaults(value: &mut Value, schema: Schema<'_>) {
    match (schema.shape(), value) {
        (Shape::Struct(fields), Value::Object(object)) => {
            for (name, field) in fields.fields() {
                match object.get_mut(name) {
                    Some(value) => apply_schema_defaults(value, field),
                    None => {
                        if let Some(mut default) = field.default() {
                            apply_schema_defaults(&mut default, field);
                            object.insert(name.to_owned(), default);
                        }
                    }
                }
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            list.iter_mut().for_each(|item| apply_schema_defaults(item, items));
        }
        (Shape::Map(values), Value::Object(object)) => {
            object.values_mut().for_each(|value| apply_schema_defaults(value, values));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::type_by_gvk;
    use crate::owned::OwnedSchema;

    #[test]
    fn defaults_are_set_where_nothing_stands() {
        let check = |schema: Schema<'_>, before: Value, after: Value| {
            let mut value = before;
            apply_schema_defaults(&mut value, schema);
            assert_eq!(value, after);
        };
        let service = Schema::of(type_by_gvk("", "v1", "Service").unwrap());
        check(
            service,
            json!({"spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}}),
            json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]}}),
        );
        let controller = Schema::of(type_by_gvk("", "v1", "ReplicationController").unwrap());
        check(controller, json!({}), json!({}));
        check(controller, json!({"spec": {}}), json!({"spec": {"replicas": 1}}));
        let owned = OwnedSchema::from_structural(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {"size": {"type": "integer", "default": 3}}}}}));
        check(owned.schema(), json!({}), json!({"spec": {"size": 3}}));
    }
}
