//! The table of a custom resource: a name, and the columns that its definition asks for.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_kinds::{Column, human_duration};
use kedge_meta::parse_time;
use serde_json::Value;

use crate::json::{items, text};
use crate::json_path::JsonPath;

const NAME: &str = "Name of the object, unique among its siblings";
const AGE: &str = "Time at which the object was created";

/// The columns with where their cells come from.
#[derive(Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    paths: Vec<Option<JsonPath>>,
}

impl Columns {
    /// Reads the `additionalPrinterColumns` of a version.
    pub(crate) fn read(version: &Value) -> Self {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        let plain = |name: &str, kind: &str, description: &str| Column {
            name: owned(name),
            kind: owned(kind),
            format: "".into(),
            description: owned(description),
            priority: 0,
        };
        let mut columns = vec![Column { format: "name".into(), ..plain("Name", "string", NAME) }];
        let mut paths = Vec::new();
        let asked = items(version, &["additionalPrinterColumns"]);
        if asked.is_empty() {
            columns.push(plain("Age", "date", AGE));
            paths.push(JsonPath::parse(".metadata.creationTimestamp"));
        }
        for column in asked {
            let words = |field: &str| text(column, &[field]);
            let name = words("name");
            let described = match words("description") {
                "" => format!("Custom resource definition column (in JSONPath format): {}", words("jsonPath")),
                text => text.to_owned(),
            };
            let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
            columns.push(Column {
                format: owned(words("format")),
                priority: u8::try_from(priority.max(0)).unwrap_or(u8::MAX),
                ..plain(name, words("type"), &described)
            });
            paths.push(JsonPath::parse(words("jsonPath")));
        }
        Self { columns, paths }
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The cells of an object's row.
    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(text(object, &["metadata", "name"]));
        let others = self.columns[1..].iter().zip(&self.paths).map(|(column, path)| {
            let value = path.as_ref().and_then(|path| path.first(object));
            value.map_or(Value::Null, |value| cell(&column.kind, value, now))
        });
        std::iter::once(name).chain(others).collect()
    }
}

fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => Value::from(other.to_string()),
        #[allow(clippy::cast_possible_truncation)]
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(time)) => match parse_time(time) {
            Some(time) => Value::from(human_duration(now.duration_since(time).as_secs())),
            None => Value::from("<invalid>"),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_show_what_columns_ask_for() {
        let now = parse_time("2026-01-01T01:00:00Z").unwrap();
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"n": 3, "list": [1], "text": "x", "yes": true}});
        let check = |columns: Value, expected: Value| {
            let columns = Columns::read(&json!({"additionalPrinterColumns": columns}));
            assert_eq!(Value::from(columns.row(&object, now)), expected);
        };
        check(json!([]), json!(["a", "60m"]));
        let column = |kind: &str, path: &str| json!({"name": "C", "type": kind, "jsonPath": path});
        check(
            json!([
                column("integer", ".spec.n"),
                column("string", ".spec.n"),
                column("string", ".spec.list"),
                column("boolean", ".spec.yes"),
                column("integer", ".spec.text"),
                column("string", ".spec.none"),
                column("date", ".spec.text"),
                column("date", ".metadata.creationTimestamp")
            ]),
            json!(["a", 3, "3", "[1]", true, null, null, "<invalid>", "60m"]),
        );
    }
}
