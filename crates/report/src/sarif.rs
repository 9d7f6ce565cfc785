//! SARIF 2.1.0 (OASIS), for hosts of code and their dashboards.

use std::collections::BTreeMap;

use kedge_diagnosis::{Cause, Diagnosis, Place, Severity};
use serde_json::{Value, json};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

pub(crate) fn log(diagnosis: &Diagnosis) -> Value {
    let titles: BTreeMap<&str, &str> = diagnosis.causes.iter().map(|cause| (cause.id, cause.title)).collect();
    let rule = |(id, title): (&&str, &&str)| json!({"id": id, "shortDescription": {"text": title}});
    let unseen = diagnosis.not_seen.iter().map(
        |unseen| json!({"level": "note", "message": {"text": format!("not seen: {}: {}", unseen.what, unseen.why)}}),
    );
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "kedge doctor", "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": titles.iter().map(rule).collect::<Vec<_>>(),
            }},
            "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": unseen.collect::<Vec<_>>()}],
            "results": diagnosis.causes.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn result(cause: &Cause) -> Value {
    let level = match cause.severity {
        Severity::Failure => "error",
        Severity::Warning => "warning",
    };
    let steps = cause.repair.steps.iter().map(|step| match &step.command {
        Some(command) => format!("{}: {command}", step.text),
        None => step.text.clone(),
    });
    let message = format!("{}\n\n{}", cause.text, steps.collect::<Vec<_>>().join("\n"));
    json!({
        "ruleId": cause.id, "level": level, "message": {"text": message},
        "locations": [location(cause)],
        "properties": {
            "confidence": cause.confidence, "explains": cause.explains, "evidence": cause.evidence,
        },
    })
}

/// The file where it is one, and always who has the trouble.
fn location(cause: &Cause) -> Value {
    let node = match &cause.place {
        Place::Node(node) => format!("{node}/"),
        Place::Cluster => String::new(),
    };
    let logical = json!([{"fullyQualifiedName": format!("{node}{}", cause.subject), "kind": "resource"}]);
    if cause.subject.name.starts_with('/') {
        let uri = format!("file://{}", cause.subject.name);
        return json!({"physicalLocation": {"artifactLocation": {"uri": uri}}, "logicalLocations": logical});
    }
    json!({"logicalLocations": logical})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::titles::tests::diagnosis;

    #[test]
    fn a_log_has_its_rules_results_and_what_was_not_seen() {
        let log = log(&diagnosis());
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "D1");
        assert_eq!((&run["results"][0]["ruleId"], &run["results"][0]["level"]), (&json!("D1"), &json!("error")));
        assert_eq!(
            run["results"][0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"],
            "one/Setting net.ipv4.ip_forward"
        );
        let unseen = &run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"];
        assert_eq!(unseen, "not seen: containers: no runtime answers");
    }
}
