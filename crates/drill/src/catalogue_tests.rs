//! The scenarios of the binary are what the schema and the guide say that scenarios are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// As much of JSON Schema as the schema of scenarios uses; what is wrong, and where.
fn errors(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let own = root.pointer(name.trim_start_matches('#')).expect("it is defined");
        return errors(own, root, value, at);
    }
    let mut found = Vec::new();
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        found.push(format!("{at} is not {wanted}"));
    }
    if let Some(all) = schema["enum"].as_array()
        && !all.contains(value)
    {
        found.push(format!("{at} is none of {all:?}"));
    }
    if let Some(wanted) = schema["type"].as_str() {
        let is = match wanted {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            _ => value.is_i64(),
        };
        if !is {
            found.push(format!("{at} is no {wanted}"));
        }
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let fits = forms.iter().filter(|form| errors(form, root, value, at).is_empty()).count();
        if fits != 1 {
            found.push(format!("{at} fits {fits} forms: {value}"));
        }
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
        found.extend(errors(&schema["items"], root, item, at));
    }
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{at} lacks {name}")));
        for (name, field) in fields {
            match known.get(name) {
                Some(own) => found.extend(errors(own, root, field, &format!("{at}.{name}"))),
                None => found.push(format!("{at}.{name} is unknown")),
            }
        }
    }
    found
}

#[test]
fn all_fit_the_schema() {
    let schema: Value = serde_json::from_str(crate::SCHEMA).expect("it is JSON");
    for text in BUILTIN {
        let value: Value = serde_yaml::from_str(text).expect("it is YAML");
        assert_eq!(errors(&schema, &schema, &value, "scenario"), [""; 0], "{}", value["id"]);
    }
    let wrong = serde_json::json!({"id": "a", "break": [{"do": "editFile", "on": "x", "pth": "y"}]});
    assert!(errors(&schema, &schema, &wrong, "scenario").len() > 2);
}

#[test]
fn every_file_is_one_of_the_binary() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let files = std::fs::read_dir(directory).expect("the scenarios are there");
    let texts: BTreeSet<String> =
        files.map(|file| std::fs::read_to_string(file.expect("it is listed").path()).expect("it is read")).collect();
    let known: BTreeSet<String> = crate::scenarios::BUILTIN.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(texts, known);
}

#[test]
fn each_has_a_name_of_its_own_and_a_known_cause() {
    let scenarios = builtin().expect("they are read");
    let ids: BTreeSet<&str> = scenarios.iter().map(|scenario| scenario.id.as_str()).collect();
    assert_eq!(ids.len(), scenarios.len());
    let known: BTreeSet<&str> = kedge_diagnosis::rules().map(|rule| rule.id).collect();
    for scenario in &scenarios {
        assert!(known.contains(scenario.cause.as_str()), "{}: no rule is called {}", scenario.id, scenario.cause);
        assert!(!scenario.title.contains(&scenario.cause), "{} tells its cause", scenario.id);
    }
}

#[test]
fn users_own_come_beside_those_of_the_binary() {
    let directory = tempfile::tempdir().expect("a directory");
    let own = BUILTIN[0].replacen("id: ", "id: own-", 1);
    std::fs::write(directory.path().join("own.yaml"), &own).expect("it is written");
    std::fs::write(directory.path().join("notes.txt"), "x").expect("it is written");
    let all = load(Some(directory.path())).expect("they are read");
    assert_eq!(all.len(), BUILTIN.len() + 1);
    assert!(find(&all, all.last().map_or("", |last| &last.id)).is_ok() && find(&all, "none").is_err());
    std::fs::write(directory.path().join("own.yaml"), BUILTIN[0]).expect("it is written");
    assert!(load(Some(directory.path())).is_err_and(|error| error.to_string().contains("another scenario")));
}
