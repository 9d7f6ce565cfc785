//! `Object{...}` and `JSONPatch{...}`: objects that expressions of mutating policies make, as maps.
//!
//! Invariant: what is named by a path (`Object.spec.template{}`) stands at that path.

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, LiteralValue, MapEntryExpr, MapExpr, StructExpr};
use cel::parser::Expression;

/// The fields of `JSONPatch`.
const OPERATION: [&str; 4] = ["from", "op", "path", "value"];

/// An expression with maps in the place of what it constructs; the error is upstream's text.
pub fn constructed(expression: &Expression) -> Result<Expression, String> {
    rewrite(expression, None)
}

/// `expected` is the name of the type that has to stand here, where that is known.
fn rewrite(expression: &Expression, expected: Option<&str>) -> Result<Expression, String> {
    let mut new = expression.clone();
    match &mut new.expr {
        Expr::Struct(of) => {
            let map = construct(of, expected)?;
            new.expr = Expr::Map(map);
        }
        Expr::List(list) => {
            for part in &mut list.elements {
                *part = rewrite(part, expected)?;
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    entry.key = rewrite(&entry.key, None)?;
                    entry.value = rewrite(&entry.value, None)?;
                }
            }
        }
        Expr::Select(select) => *select.operand = rewrite(&select.operand, None)?,
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                **target = rewrite(target, None)?;
            }
            for part in &mut call.args {
                *part = rewrite(part, None)?;
            }
        }
        Expr::Comprehension(all) => {
            let parts = [&mut all.iter_range, &mut all.accu_init, &mut all.loop_cond, &mut all.loop_step];
            for part in parts.into_iter().chain([&mut all.result]) {
                *part = rewrite(part, None)?;
            }
        }
        _ => {}
    }
    Ok(new)
}

fn construct(of: &StructExpr, expected: Option<&str>) -> Result<MapExpr, String> {
    let name = of.type_name.as_str();
    let is_object = name == "Object" || name.starts_with("Object.");
    if !is_object && name != "JSONPatch" {
        return Err(format!("undeclared reference to '{name}' (in container '')"));
    }
    if let Some(expected) = expected.filter(|expected| *expected != name) {
        return Err(format!(
            "type mismatch: unexpected type name \"{name}\", expected \"{expected}\", which matches field name path \
             from root Object type"
        ));
    }
    let mut entries = Vec::with_capacity(of.entries.len());
    for entry in &of.entries {
        let EntryExpr::StructField(field) = &entry.expr else { continue };
        if !is_object && !OPERATION.contains(&field.field.as_str()) {
            return Err(format!("undefined field '{}'", field.field));
        }
        let path = is_object.then(|| format!("{name}.{}", field.field));
        let key = Expr::Literal(LiteralValue::String(field.field.clone().into()));
        let entry_of_map = MapEntryExpr {
            key: Expression { id: entry.id, expr: key },
            value: rewrite(&field.value, path.as_deref())?,
            optional: field.optional,
        };
        entries.push(IdedEntryExpr { id: entry.id, expr: EntryExpr::MapEntry(entry_of_map) });
    }
    Ok(MapExpr { entries })
}

#[cfg(test)]
mod tests {
    use cel::{Context, Value};
    use serde_json::json;

    use super::*;
    use crate::environment::{compile, environment};
    use crate::to_json;

    fn check(source: &str, expected: Result<serde_json::Value, &str>) {
        let program = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let made = constructed(program.expression()).map(|expression| {
            let value = Value::resolve(&expression, &Context::with_env(environment())).unwrap();
            to_json(&value).unwrap()
        });
        match (made, expected) {
            (Ok(actual), Ok(expected)) => assert_eq!(actual, expected, "{source}"),
            (Err(actual), Err(expected)) => assert!(actual.contains(expected), "{source}: {actual}"),
            (actual, _) => panic!("{source}: {actual:?}"),
        }
    }

    #[test]
    fn objects_are_made() {
        check("Object{}", Ok(json!({})));
        check("Object{spec: Object.spec{replicas: 1 + 2}}", Ok(json!({"spec": {"replicas": 3}})));
        check(
            "Object{metadata: Object.metadata{labels: {'a/b': 'c'}, ?name: optional.none()}}",
            Ok(json!({"metadata": {"labels": {"a/b": "c"}}})),
        );
        check(
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
             ['x', 'y'].map(n, Object.spec.template.spec.containers{name: n})}}}}",
            Ok(json!({"spec": {"template": {"spec": {"containers": [{"name": "x"}, {"name": "y"}]}}}})),
        );
        check(
            "[JSONPatch{op: 'add', path: '/spec/x', value: Object.spec.x{y: 1}}, JSONPatch{op: 'remove', path: '/a'}]",
            Ok(json!([{"op": "add", "path": "/spec/x", "value": {"y": 1}}, {"op": "remove", "path": "/a"}])),
        );
    }

    #[test]
    fn objects_that_stand_elsewhere_are_refused() {
        check(
            "Object{spec: Object.status{x: 1}}",
            Err("unexpected type name \"Object.status\", expected \"Object.spec\""),
        );
        check("Thing{x: 1}", Err("undeclared reference to 'Thing'"));
        check("JSONPatch{operation: 'add'}", Err("undefined field 'operation'"));
    }
}
