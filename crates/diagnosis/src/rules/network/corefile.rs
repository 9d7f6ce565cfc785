//! G15: the Corefile has a directive that the DNS server does not know, most often one of an older version.

use serde_json::Value;

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{container_statuses, terminated, text};
use crate::rules::network::lookups::is_dns;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["coredns"],
    words: &[&["Unknown directive '"], &["Error during parsing", "Corefile"], &["Corefile:", "- Error during parsing"]],
    over: &["Running configuration SHA512", "CoreDNS-"],
};
/// Directives that newer versions do not have, with what took their place.
const REMOVED: [(&str, &str); 2] = [("proxy", "forward"), (REMOVED_ALONE, "nothing")];
const REMOVED_ALONE: &str = "federation";

pub(super) const RULE: Rule = Rule {
    id: "G15",
    title: "the DNS server cannot read its Corefile",
    layer: Layer::Dns,
    explains: &[
        Explains { ids: &["W1"], scope: Scope::SameSubject },
        Explains { ids: &["G25"], scope: Scope::Anywhere },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found =
        SIGN.found(evidence, Certainty::Proven, |_| repair(), |told| format!("coredns says: {}", told.text.trim()));
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| is_dns(pod)) {
        let subject = crate::object::subject(pod);
        let message = container_statuses(pod).filter_map(terminated).find_map(|end| end["message"].as_str());
        let message = message.filter(|message| SIGN.is_said_by(message));
        if let Some(message) = message.filter(|_| !found.iter().any(|known| known.subject == subject)) {
            let told = format!("{subject} says: {}", message.trim());
            found.push(Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair()));
        }
    }
    if found.is_empty() {
        found.extend(foretold(evidence));
    }
    found
}

/// A Corefile whose directives the next version will not know.
fn foretold(evidence: &Evidence) -> Option<Finding> {
    let mut maps = evidence.objects("ConfigMap").filter(|(_, _, map)| is_corefile(map));
    let (index, item, map) = maps.next()?;
    let mut lines = text(&map["data"]["Corefile"]).lines().filter_map(|line| line.split_whitespace().next());
    let (old, new) = lines.find_map(|word| REMOVED.into_iter().find(|(old, _)| *old == word))?;
    let told =
        format!("the Corefile has the directive {old}, which newer versions of coredns refuse; {new} took its place");
    let subject = Subject { namespace: "kube-system".to_owned(), ..Subject::new("ConfigMap", "coredns") };
    let mut repair = repair();
    // What has no successor, only a person can do without.
    if old != REMOVED_ALONE {
        let change = Action::ReplaceDirective { from: old.to_owned(), to: new.to_owned() };
        let (namespace, name) = ("kube-system".to_owned(), "coredns".to_owned());
        repair = repair.acting(1, change).acting(2, Action::RestartDeployment { namespace, name });
    }
    let mut finding = Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair);
    finding.severity = Severity::Warning;
    Some(finding)
}

fn is_corefile(map: &Value) -> bool {
    map["metadata"]["namespace"] == "kube-system" && map["data"]["Corefile"].is_string()
}

fn repair() -> Repair {
    Repair::of(&[
        ("Keep the file as it is now", "kubectl -n kube-system get configmap coredns -o yaml > coredns-configmap.yaml"),
        (
            "Write forward instead of proxy, and take out what the message names",
            "kubectl -n kube-system edit configmap coredns",
        ),
        ("Start the DNS pods again", "kubectl -n kube-system rollout restart deployment coredns"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unknown_directive_is_found() {
        let line = |text: &str| container_logged("coredns", text);
        for text in [
            "/etc/coredns/Corefile:12 - Error during parsing: Unknown directive 'proxy'",
            "plugin/forward: not an IP address or file: \"x\" - Error during parsing Corefile",
        ] {
            assert_eq!(found_among(&RULE, [line(text)]).len(), 1);
        }
        let over = [
            line("/etc/coredns/Corefile:12 - Error during parsing: Unknown directive 'proxy'"),
            line("CoreDNS-1.12.0"),
        ];
        assert_eq!(found_among(&RULE, over), [""; 0]);
    }

    #[test]
    fn a_removed_directive_is_foretold() {
        let map = |text: &str| json!({"kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "coredns"}, "data": {"Corefile": text}});
        assert_eq!(found(&RULE, [map(".:53 {\n    errors\n    proxy . /etc/resolv.conf\n}\n")]).len(), 1);
        assert_eq!(found(&RULE, [map(".:53 {\n    errors\n    forward . /etc/resolv.conf\n}\n")]), [""; 0]);
    }
}
