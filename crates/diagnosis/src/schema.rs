//! The form of a diagnosis in JSON, as JSON Schema: what `kedge doctor --output json` says.
//!
//! Invariant: in unit tests, every diagnosis is held against it; a change that old
//! readers cannot read gets another version.

use serde_json::{Value, json};

/// The form and its version, as a diagnosis names it.
pub(crate) const API_VERSION: &str = "doctor.kedge.dev/v1";
/// What it is.
pub(crate) const KIND: &str = "Diagnosis";

/// The schema, of the draft 2020-12.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://kedge.dev/schemas/doctor/v1/diagnosis.json",
        "title": "What kedge doctor says of a cluster",
        "type": "object",
        "required": ["apiVersion", "kind", "causes", "ruledOut", "notSeen"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "The form and its version."},
            "kind": {"const": KIND},
            "causes": list("What nothing else explains, best first; empty where nothing is wrong.", "#/$defs/cause"),
            "ruledOut": list("What would look the same, was looked for, and is not it.", "#/$defs/ruledOut"),
            "notSeen": list("What could not be looked at.", "#/$defs/notSeen"),
        },
        "$defs": {
            "id": {"type": "string", "pattern": "^[A-Z][0-9]+$", "description": "An id of the catalogue of failures."},
            "time": {"type": "string", "format": "date-time"},
            "place": {
                "description": "In the API, or on a machine.",
                "oneOf": [{"const": "cluster"}, object("A machine.", &["node"], json!({"node": text("Its name.")}))],
            },
            "subject": object("An object of the API, or a part of a machine.", &["kind", "name"], json!({
                "kind": text("A kind of the API, or File, Certificate, Setting, Machine and the like."),
                "namespace": text("Its namespace, where it has one."),
                "name": text("Its name."),
            })),
            "cause": cause(),
            "exhibit": object("An item of evidence, as a person can look it up.", &["origin", "shown"], json!({
                "time": {"$ref": "#/$defs/time", "description": "When it happened."},
                "origin": text("Where it was read: a file or a command."),
                "shown": text("What stood there."),
            })),
            "repair": object("What mends it.", &["steps", "dangerous"], json!({
                "steps": list("In their order.", "#/$defs/step"),
                "dangerous": {"type": "boolean", "description": "Whether data may be lost."},
            })),
            "step": object("A step.", &["text"], json!({
                "text": text("What to do and why."),
                "command": text("The command, where one does it."),
                "action": {"type": "object", "description": "What `--fix` does for it, where a program can: one field, named as the action."},
            })),
            "ruledOut": object("A cause that was considered.", &["id", "title", "why"], json!({
                "id": {"$ref": "#/$defs/id"}, "title": text("The cause in a few words."), "why": text("What was looked at."),
            })),
            "notSeen": object("What could not be looked at.", &["what", "why"], json!({
                "what": text("What."), "why": text("Why."),
            })),
        },
    })
}

fn cause() -> Value {
    let required =
        ["id", "title", "subject", "place", "confidence", "severity", "text", "explains", "evidence", "repair"];
    object(
        "Something that nothing else explains.",
        &required,
        json!({
            "id": {"$ref": "#/$defs/id"},
            "title": text("The cause in a few words."),
            "subject": {"$ref": "#/$defs/subject"},
            "place": {"$ref": "#/$defs/place"},
            "confidence": {"enum": ["possible", "likely", "proven"], "description": "How sure it is."},
            "severity": {"enum": ["warning", "failure"], "description": "Whether it will fail, or fails."},
            "since": {"$ref": "#/$defs/time", "description": "When the first word of it was written."},
            "text": text("What is wrong, in one sentence."),
            "explains": {"type": "array", "items": {"type": "string"}, "description": "What follows from it, in one sentence each."},
            "evidence": list("What proves it.", "#/$defs/exhibit"),
            "repair": {"$ref": "#/$defs/repair"},
        }),
    )
}

fn text(about: &str) -> Value {
    json!({"type": "string", "description": about})
}

fn list(about: &str, of: &str) -> Value {
    json!({"type": "array", "description": about, "items": {"$ref": of}})
}

fn object(about: &str, required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "description": about, "required": required, "additionalProperties": false,
        "properties": properties})
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::LazyLock;

    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

    /// Panics where a diagnosis is not as the schema says.
    pub(crate) fn hold(diagnosis: &crate::Diagnosis) {
        let value = serde_json::to_value(diagnosis).expect("it has a form in JSON");
        assert_eq!(errors(&SCHEMA, &value, "diagnosis"), [""; 0]);
    }

    /// As much of JSON Schema as this one uses; what is wrong, and where.
    fn errors(schema: &Value, value: &Value, at: &str) -> Vec<String> {
        if let Some(name) = schema["$ref"].as_str() {
            return errors(SCHEMA.pointer(&name[1..]).expect("it is defined"), value, at);
        }
        let mut found = Vec::new();
        let is_const = schema.get("const").is_none_or(|wanted| wanted == value);
        let is_listed = schema["enum"].as_array().is_none_or(|all| all.contains(value));
        let is_type = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some(other) => panic!("{other} is not checked"),
            None => true,
        };
        let is_time = schema["format"] != "date-time"
            || value.as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok());
        let fits = schema["oneOf"]
            .as_array()
            .is_none_or(|forms| forms.iter().filter(|form| errors(form, value, at).is_empty()).count() == 1);
        if !(is_const && is_listed && is_type && is_time && fits) {
            found.push(format!("{at} is {value}"));
        }
        for item in value.as_array().into_iter().flatten() {
            found.extend(errors(&schema["items"], item, &format!("{at}[]")));
        }
        if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.extend(required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{at} lacks {name}")));
            for (name, field) in fields {
                match known.get(name) {
                    Some(own) => found.extend(errors(own, field, &format!("{at}.{name}"))),
                    None => found.push(format!("{at}.{name} is unknown")),
                }
            }
        }
        found
    }

    #[test]
    fn what_is_otherwise_does_not_fit() {
        let mut value = serde_json::to_value(crate::diagnose(&crate::Evidence::default())).expect("JSON");
        assert_eq!(errors(&SCHEMA, &value, "it"), [""; 0]);
        value["causes"] = json!([{"id": "Z99", "place": "moon", "extra": 1}]);
        let wrong = errors(&SCHEMA, &value, "it");
        for part in ["it.causes[].place is", "it.causes[].extra is unknown", "it.causes[] lacks title"] {
            assert!(wrong.iter().any(|error| error.starts_with(part)), "{part}: {wrong:?}");
        }
    }

    #[test]
    fn the_published_one_is_this() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor-report.schema.json");
        let published = std::fs::read_to_string(path).unwrap_or_default();
        let own = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
        if std::env::var_os("KEDGE_BLESS").is_some() {
            std::fs::write(path, &own).expect("it is written");
        } else {
            assert!(published == own, "run `kedge doctor schema > docs/doctor-report.schema.json`");
        }
    }
}
