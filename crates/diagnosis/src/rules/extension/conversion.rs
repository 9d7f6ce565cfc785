//! H13: nobody converts the objects of a custom resource, so it cannot be listed, and collectors of garbage stand still.

use std::collections::BTreeSet;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{is_older_than, list, subject, text};
use crate::rules::extension::backends::Backends;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign { programs: &[], words: &[&["conversion webhook for ", " failed: "]], over: &[] };
/// Seconds that a new conversion's pods have to start.
const PATIENCE: i64 = 300;

pub(super) const RULE: Rule = Rule {
    id: "H13",
    title: "a custom resource's conversion webhook does not answer",
    layer: Layer::Extension,
    explains: &[Explains { ids: &["H9"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let said = said(evidence);
    let backends = Backends::of(evidence);
    let mut found = Vec::new();
    for (index, item, definition) in evidence.objects("CustomResourceDefinition") {
        let conversion = &definition["spec"]["conversion"];
        let is_needed = conversion["strategy"] == "Webhook" && list(&definition["spec"]["versions"]).count() > 1;
        let (service, backend) = backends.behind(&conversion["webhook"]["clientConfig"]["service"]);
        if !is_needed || !backend.is_dead() || !is_older_than(definition, PATIENCE, evidence.gathered) {
            continue;
        }
        let name = text(&definition["metadata"]["name"]);
        let told = format!("objects of {name} cannot be converted: {}", backend.told(&service));
        let proof = [index].into_iter().chain(said.iter().copied()).collect();
        let mut finding = Finding::failure(subject(definition), item, Certainty::Likely, told, proof, repair(name));
        if said.is_empty() {
            finding.severity = Severity::Warning;
        }
        found.push(finding);
    }
    if let (true, Some(first)) = (found.is_empty(), said.first()) {
        let told = "objects of a custom resource cannot be converted, because its webhook does not answer".to_owned();
        let subject = Subject::new("Cluster", "conversion of custom resources");
        let item = &evidence.items[*first];
        let proof = said.iter().copied().collect();
        found.push(Finding::failure(subject, item, Certainty::Likely, told, proof, repair("")));
    }
    found
}

/// Where somebody met the failure: lines of logs, events, and conditions of namespaces.
fn said(evidence: &Evidence) -> BTreeSet<usize> {
    let lines = SIGN.told(evidence).into_iter().flat_map(|told| told.lines);
    let events = evidence.objects("Event").filter(|(_, _, event)| SIGN.is_said_by(text(&event["message"])));
    let namespaces = evidence.objects("Namespace").filter(|(_, _, namespace)| {
        list(&namespace["status"]["conditions"]).any(|condition| SIGN.is_said_by(text(&condition["message"])))
    });
    lines.chain(events.chain(namespaces).map(|(index, _, _)| index)).collect()
}

fn repair(name: &str) -> Repair {
    let look =
        if name.is_empty() { "kubectl get crd -o yaml".to_owned() } else { format!("kubectl get crd {name} -o yaml") };
    Repair::of(&[
        ("See who converts it", look.as_str()),
        ("Bring that server back: its pods, its Service, its certificate", ""),
        ("The objects stay in the store; do not delete the definition, which deletes them all", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::extension::backends::fixtures::*;
    use crate::rules::fixtures::*;

    fn definition(versions: usize) -> Value {
        let versions: Vec<Value> =
            (1..=versions).map(|number| json!({"name": format!("v{number}"), "served": true})).collect();
        old(
            json!({"kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"}, "spec": {"versions": versions,
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"service": {"namespace": "a", "name": "c"}}}}}}),
        )
    }

    #[test]
    fn a_conversion_that_nobody_makes_is_found() {
        let slices = |ready| [service("c"), slice("c", &[("one", ready)])];
        let with = |definition: Value, ready| found(&RULE, [definition].into_iter().chain(slices(ready)));
        assert_eq!(
            with(definition(2), false),
            ["objects of widgets.example.com cannot be converted: Service a/c has no ready endpoint"]
        );
        assert_eq!(with(definition(2), true), [""; 0]);
        assert_eq!(with(definition(1), false), [""; 0]);
    }

    #[test]
    fn what_components_say_of_it_is_found() {
        let line = "E0722 10:00:00.0 1 namespace_controller.go:164] \"Unhandled Error\" err=\"conversion webhook for example.com/v1, Kind=Widget failed: Post \\\"https://c.a.svc:443/convert?timeout=30s\\\": service \\\"c\\\" not found\"";
        assert_eq!(found_among(&RULE, [container_logged("kube-controller-manager", line)]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(container_logged("kube-controller-manager", line), 7200)]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [container_logged("kube-controller-manager", "conversion webhook is ready")]),
            [""; 0]
        );
    }
}
