//! The kinds of `flowcontrol.apiserver.k8s.io`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name, or_none};
use crate::value::{at, at_mut, child, fill, int, items, set, text};
use crate::workload::{SPEC, not_negative};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "flowschemas" => &FlowSchema,
        "prioritylevelconfigurations" => &PriorityLevelConfiguration,
        _ => &Generic::PLAIN,
    }
}

/// Of flowschemas.
struct FlowSchema;

/// Of prioritylevelconfigurations.
struct PriorityLevelConfiguration;

const SCHEMA_COLUMNS: &[Column] = &[
    NAME,
    column("PriorityLevel", "string", "Priority level of its requests"),
    column("MatchingPrecedence", "string", "Order among flow schemas, the smallest first"),
    column("DistinguisherMethod", "string", "What tells its flows apart"),
    AGE,
    column("MissingPL", "string", "Whether the priority level is missing"),
];

const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "Exempt or Limited"),
    column("NominalConcurrencyShares", "string", "Its share of requests at the same time"),
    column("Queues", "string", "How many queues it has"),
    column("HandSize", "string", "Queues that a flow may use"),
    column("QueueLengthLimit", "string", "Requests that may wait in a queue"),
    AGE,
];

impl Strategy for FlowSchema {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec")
            && int(spec, &["matchingPrecedence"]).unwrap_or(0) == 0
        {
            set(spec, "matchingPrecedence", 1000);
        }
        fill(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let precedence = int(object, &["spec", "matchingPrecedence"]).unwrap_or(0);
        let path = SPEC.child("matchingPrecedence");
        if precedence <= 0 {
            path.invalid(errors, precedence, "must be a positive value");
        } else if precedence > 10_000 {
            path.invalid(errors, precedence, "must not be greater than 10000");
        }
        if text(object, &["spec", "priorityLevelConfiguration", "name"]).is_empty() {
            SPEC.child("priorityLevelConfiguration").child("name").required(errors, "must reference a priority level");
        }
        for (index, rule) in items(object, &["spec", "rules"]).iter().enumerate() {
            let rules = SPEC.child("rules");
            let path = rules.index(index);
            if items(rule, &["subjects"]).is_empty() {
                path.child("subjects").required(errors, "subjects must contain at least one value");
            }
            if items(rule, &["resourceRules"]).is_empty() && items(rule, &["nonResourceRules"]).is_empty() {
                path.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
            }
        }
    }

    fn columns(&self) -> &[Column] {
        SCHEMA_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let conditions = items(object, &["status", "conditions"]);
        let dangling = conditions.iter().find(|condition| text(condition, &["type"]) == "Dangling");
        vec![
            name(object),
            Value::from(text(object, &["spec", "priorityLevelConfiguration", "name"])),
            Value::from(int(object, &["spec", "matchingPrecedence"]).unwrap_or(0)),
            Value::from(or_none(text(object, &["spec", "distinguisherMethod", "type"]))),
            age(object, now),
            Value::from(dangling.map_or("?", |condition| text(condition, &["status"]))),
        ]
    }
}

impl Strategy for PriorityLevelConfiguration {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(exempt) = at_mut(object, &["spec", "exempt"]) {
            fill(exempt, "nominalConcurrencyShares", 0);
            fill(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = at_mut(object, &["spec", "limited"]) {
            fill(limited, "nominalConcurrencyShares", 30);
            fill(limited, "lendablePercent", 0);
            if let Some(queuing) = at_mut(limited, &["limitResponse", "queuing"]) {
                for (field, number) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if int(queuing, &[field]).unwrap_or(0) == 0 {
                        set(queuing, field, number);
                    }
                }
            }
        }
        fill(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let kind = text(object, &["spec", "type"]);
        SPEC.child("type").one_of(errors, kind, &["Exempt", "Limited"]);
        let limited = at(object, &["spec", "limited"]);
        match (kind, limited) {
            ("Exempt", Some(_)) => SPEC.child("limited").forbidden(errors, "must be nil if the type is not Limited"),
            ("Limited", None) => SPEC.child("limited").required(errors, "must not be empty when type is Limited"),
            ("Limited", Some(limited)) => limited_errors(limited, &SPEC.child("limited"), errors),
            _ => {}
        }
    }

    fn columns(&self) -> &[Column] {
        LEVEL_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let limited = &object["spec"]["limited"];
        let cell = |path: &[&str]| int(limited, path).map_or_else(|| Value::from("<none>"), Value::from);
        let queuing = |field: &'static str| cell(&["limitResponse", "queuing", field]);
        vec![
            name(object),
            Value::from(text(object, &["spec", "type"])),
            cell(&["nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(object, now),
        ]
    }
}

fn limited_errors(limited: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    not_negative(limited, &["nominalConcurrencyShares"], path, errors);
    let response = path.child("limitResponse");
    let queuing = at(limited, &["limitResponse", "queuing"]);
    let kind = text(limited, &["limitResponse", "type"]);
    response.child("type").one_of(errors, kind, &["Queue", "Reject"]);
    match (kind, queuing) {
        ("Reject", Some(_)) => {
            response.child("queuing").forbidden(errors, "must be nil if limited.limitResponse.type is not Limited")
        }
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            response.child("queuing").required(errors, why);
        }
        ("Queue", Some(queuing)) => {
            let path = response.child("queuing");
            for field in ["queueLengthLimit", "queues", "handSize"] {
                let number = int(queuing, &[field]).unwrap_or(0);
                if number <= 0 {
                    path.child(field).invalid(errors, number, "must be positive");
                }
            }
        }
        _ => {}
    }
}
