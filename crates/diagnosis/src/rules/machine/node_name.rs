//! F14: the name of a machine cannot be a node's.

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{one_of_each_machine, says, told_of_machines};
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F14",
    title: "the machine's name cannot be a node's",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["nodeRegistration.name: Invalid value", "RFC 1123"],
    &["Node", "is invalid: metadata.name: Invalid value", "RFC 1123"],
    &["could not be used as a node name"],
    &["cannot be a node's name"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let named = evidence.settings("kernel.hostname").filter_map(|(index, item, name)| {
        let name = name?;
        // The kubelet makes large letters small; a name given to it by a flag is another one.
        let is_used = item.place == Place::Node(name.to_lowercase());
        if is_valid(&name.to_lowercase()) || !is_used {
            return None;
        }
        let text = format!("{name:?} cannot be a node's name: only letters, digits, '-' and '.' are allowed");
        Some(Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair()))
    });
    let checked = checks(evidence, "Hostname").filter(|check| check.text.contains("RFC 1123")).map(|check| {
        let text = check.text.to_owned();
        Finding::failure(
            Subject::machine(&check.item.place),
            check.item,
            Certainty::Proven,
            text,
            vec![check.index],
            repair(),
        )
    });
    let told =
        told_of_machines(evidence, |line| says(&line.text, FORMS), |_| false, |line| (line.to_owned(), repair()));
    one_of_each_machine(named.chain(checked).chain(told))
}

/// Whether a name is a subdomain as RFC 1123 has it.
fn is_valid(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_ok = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        !label.is_empty() && label.chars().all(is_ok) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn repair() -> Repair {
    Repair::of(&[
        ("Name the machine anew", "hostnamectl set-hostname NAME"),
        ("Or give the kubelet another name", "kedge join ... --node-name NAME"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn named(place: &str, name: &str) -> Item {
        on(place, Fact::Setting { name: "kernel.hostname".to_owned(), value: Some(name.to_owned()) })
    }

    #[test]
    fn underscores_are_found_and_large_letters_are_not() {
        assert_eq!(found_among(&RULE, [named("my_node", "my_node")]).len(), 1);
        assert_eq!(found_among(&RULE, [named("node-1", "Node-1")]), [""; 0]);
        assert_eq!(found_among(&RULE, [named("good-name", "my_node")]), [""; 0], "it was given another name");
    }

    #[test]
    fn the_words_of_commands_are_found() {
        let line = "nodeRegistration.name: Invalid value: \"my_node\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        let pod = "Pod \"x_y\" is invalid: metadata.name: Invalid value: \"x_y\": a lowercase RFC 1123 subdomain must consist of";
        assert_eq!(found_among(&RULE, [pasted("kubectl", pod)]), [""; 0]);
    }
}
