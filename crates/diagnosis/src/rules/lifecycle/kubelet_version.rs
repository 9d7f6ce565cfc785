//! D7: a kubelet is newer than its API server, or too old for it.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, subject, text};
use crate::rules::lines::one_of_each_machine;
use crate::rules::preflight::checks;
use crate::rules::{Layer, Rule};

/// Minor versions that a kubelet may be behind.
const BEHIND: u64 = 3;

pub(super) const RULE: Rule = Rule {
    id: "D7",
    title: "a kubelet's version does not go with the control plane's",
    layer: Layer::Kubelet,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let checked = checks(evidence, "KubeletVersion").map(|check| {
        let subject = Subject::machine(&check.item.place);
        let mut finding = Finding::failure(
            subject,
            check.item,
            Certainty::Proven,
            check.text.to_owned(),
            vec![check.index],
            repair(),
        );
        finding.severity = check.severity;
        finding
    });
    one_of_each_machine(seen(evidence).into_iter().chain(checked))
}

/// What nodes say of their kubelets, held against the oldest API server that runs.
fn seen(evidence: &Evidence) -> Vec<Finding> {
    let servers = evidence.objects("Pod").filter_map(|(index, _, pod)| {
        let is_server = pod["metadata"]["labels"]["component"] == "kube-apiserver";
        let image = text(&list(&pod["spec"]["containers"]).next()?["image"]);
        Some((minor(image.rsplit(':').next()?)?, index)).filter(|_| is_server)
    });
    let Some((server, server_index)) = servers.min() else { return Vec::new() };
    let nodes = evidence.objects("Node").filter_map(|(index, item, node)| {
        let version = text(&node["status"]["nodeInfo"]["kubeletVersion"]);
        let kubelet = minor(version)?;
        let why = match kubelet {
            newer if newer > server => "newer than the API server",
            older if older + BEHIND < server => "more than three minor versions behind the API server",
            _ => return None,
        };
        let name = text(&node["metadata"]["name"]);
        let told = format!("the kubelet of {name} is {version}, {why} (1.{server})");
        let mut finding =
            Finding::failure(subject(node), item, Certainty::Likely, told, vec![index, server_index], repair());
        finding.severity = Severity::Warning;
        Some(finding.on_node(name))
    });
    nodes.collect()
}

/// The minor version in `v1.36.0`.
fn minor(version: &str) -> Option<u64> {
    version.strip_prefix("v1.")?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn repair() -> Repair {
    Repair::of(&[
        ("See what is installed", "kubelet --version; kubeadm version -o short"),
        (
            "Install the version of the control plane, and hold it",
            "apt-get install kubelet=VERSION && apt-mark hold kubelet",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn server(version: &str) -> Value {
        let spec = json!({"containers": [{"image": format!("registry.k8s.io/kube-apiserver:{version}")}]});
        let mut pod = pod("kube-system", "kube-apiserver-one", spec, json!({}));
        pod["metadata"]["labels"] = json!({"component": "kube-apiserver"});
        pod
    }

    fn kubelet(version: &str) -> Value {
        let mut node = node("one", json!([]));
        node["status"]["nodeInfo"] = json!({"kubeletVersion": version});
        node
    }

    #[test]
    fn newer_and_very_old_kubelets_are_found() {
        assert_eq!(found(&RULE, [server("v1.35.1"), kubelet("v1.36.0")]).len(), 1);
        assert_eq!(found(&RULE, [server("v1.36.1"), kubelet("v1.32.9")]).len(), 1);
        assert_eq!(found(&RULE, [server("v1.36.1"), kubelet("v1.33.0+k3s1")]), [""; 0]);
        // In the middle of an upgrade the oldest server counts.
        assert_eq!(found(&RULE, [server("v1.36.0"), server("v1.35.0"), kubelet("v1.36.0")]).len(), 1);
    }

    #[test]
    fn a_check_of_a_command_is_told() {
        let line = "\t[ERROR KubeletVersion]: the kubelet version is higher than the control plane version.";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
    }
}
