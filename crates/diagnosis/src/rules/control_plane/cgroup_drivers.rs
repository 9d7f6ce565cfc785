//! A19: kubelet and runtime make control groups in two ways, and end each other's pods.

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const RESTARTS: Sign = Sign {
    programs: &["kubelet", "etcd"],
    words: &[&["SandboxChanged"], &["received signal; shutting down"], &["received terminated signal, shutting down"]],
    over: &[],
};
/// Restarts from which on they are no chance.
const OFTEN: usize = 3;

pub(super) const RULE: Rule = Rule {
    id: "A19",
    title: "kubelet and runtime make control groups in two ways",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "A16", "A17", "B13", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::SameNode },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, config) in evidence.documents("kubelet") {
        let own = text(&config["cgroupDriver"]);
        let Some((other, runtime)) = runtimes_driver(evidence, &item.place) else { continue };
        // The runtime tells kubelets of today which one to take, whatever is written; those without a word take cgroupfs.
        let own = if own.is_empty() { "cgroupfs" } else { own };
        if own == runtime {
            continue;
        }
        let restarts: Vec<_> = RESTARTS
            .told(evidence)
            .into_iter()
            .filter(|told| told.item.place == item.place && told.count >= OFTEN)
            .collect();
        found.push(finding(item, own, runtime, &restarts, vec![index, other]));
    }
    found
}

fn finding(item: &Item, own: &str, runtime: &str, restarts: &[Told<'_>], mut proof: Vec<usize>) -> Finding {
    proof.extend(restarts.iter().flat_map(|told| told.lines.iter().copied()));
    let repair = Repair::of(&[
        (
            "Let the runtime do as the kubelet: in the section of runc's options",
            "sed -i 's/SystemdCgroup = .*/SystemdCgroup = true/' /etc/containerd/config.toml",
        ),
        (
            "If its configuration is a fragment, write all of it first",
            "containerd config default > /etc/containerd/config.toml",
        ),
        ("Restart both", "systemctl restart containerd kubelet"),
    ]);
    let effect = if restarts.is_empty() { "pods may be ended at any time" } else { "and pods end again and again" };
    let text = format!("the kubelet makes control groups with {own}, the runtime with {runtime}: {effect}");
    let finding =
        Finding::failure(Subject::new("Setting", "cgroupDriver"), item, Certainty::Likely, text, proof, repair);
    if restarts.is_empty() { finding.warning() } else { finding }
}

/// What the runtime's configuration says of its control groups, in the form of a text or read.
fn runtimes_driver(evidence: &Evidence, place: &Place) -> Option<(usize, &'static str)> {
    let mut configs = evidence.documents("containerd").filter(|(_, item, _)| item.place == *place);
    configs.find_map(|(index, _, config)| Some((index, driver_of(config)?)))
}

fn driver_of(config: &Value) -> Option<&'static str> {
    let named = |systemd: bool| if systemd { "systemd" } else { "cgroupfs" };
    match config {
        Value::String(toml) => {
            let mut lines = toml.lines().filter_map(|line| line.trim().strip_prefix("SystemdCgroup"));
            lines.next().map(|rest| named(rest.contains("true")))
        }
        Value::Object(fields) => match fields.get("SystemdCgroup") {
            Some(Value::Bool(systemd)) => Some(named(*systemd)),
            _ => fields.values().find_map(driver_of),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn kubelet(driver: &str) -> Item {
        document("kubelet", json!({"cgroupDriver": driver}))
    }

    #[test]
    fn two_ways_are_found_in_text_and_structure() {
        let toml = |value: &str| document("containerd", json!(format!("[x]\n  SystemdCgroup = {value}\n")));
        let read = |value: bool| {
            document(
                "containerd",
                json!({"plugins": {"io.containerd.grpc.v1.cri": {"options": {"SystemdCgroup": value}}}}),
            )
        };
        assert_eq!(found_among(&RULE, [kubelet("systemd"), toml("false")]).len(), 1);
        assert_eq!(found_among(&RULE, [kubelet("systemd"), read(false)]).len(), 1);
        assert_eq!(found_among(&RULE, [kubelet("systemd"), toml("true")]), [""; 0]);
        assert_eq!(found_among(&RULE, [kubelet("cgroupfs"), read(false)]), [""; 0]);
        assert_eq!(found_among(&RULE, [kubelet("systemd")]), [""; 0]);
    }

    #[test]
    fn with_restarts_it_is_a_failure() {
        let ends = (0..3)
            .map(|_| ago(line_of("etcd", r#"{"msg":"received signal; shutting down","signal":"terminated"}"#), 10));
        let config = document("containerd", json!({"SystemdCgroup": false}));
        let texts = found_among(&RULE, ends.chain([kubelet("systemd"), config]));
        assert!(texts[0].ends_with("pods end again and again"), "{texts:?}");
    }
}
