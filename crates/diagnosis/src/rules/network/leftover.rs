//! G11: several CNI configurations lie side by side: the runtime takes the first by name, which a former network left.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, text};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "G11",
    title: "a machine has the configurations of two pod networks",
    layer: Layer::Network,
    explains: &[],
    find,
};

/// A configuration: its item, its file and what it says.
type Configuration<'a> = (usize, &'a Item, &'a str, &'a Value);

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut machines: BTreeMap<&Place, Vec<Configuration<'_>>> = BTreeMap::new();
    for (index, item, (path, content)) in evidence.pick(configuration) {
        if is_network(content) {
            machines.entry(&item.place).or_default().push((index, item, path, content));
        }
    }
    let several = machines.into_values().filter(|files| files.len() > 1);
    several.map(|files| finding(evidence, files)).collect()
}

fn configuration(fact: &Fact) -> Option<(&str, &Value)> {
    match fact {
        Fact::Document { name, path, content: Ok(content) } if name == "cni" => Some((path, content)),
        _ => None,
    }
}

/// Whether it gives pods addresses: the loopback's does not, and Podman's is for its own containers.
fn is_network(content: &Value) -> bool {
    let name = text(&content["name"]);
    types(content).any(|kind| kind != "loopback") && !name.contains("podman")
}

fn types(content: &Value) -> impl Iterator<Item = &str> {
    list(&content["plugins"]).chain([content]).map(|plugin| text(&plugin["type"])).filter(|kind| !kind.is_empty())
}

fn finding(evidence: &Evidence, mut files: Vec<Configuration<'_>>) -> Finding {
    files.sort_by_key(|(_, _, path, _)| *path);
    let (_, item, first, content) = files[0];
    let others = files[1..].iter().map(|(_, _, path, _)| *path).collect::<Vec<_>>().join(", ");
    let installed = installed(evidence, &item.place);
    let is_wrong = installed.is_some_and(|(_, plugin)| !types(content).any(|kind| kind.contains(plugin)));
    let kind = types(content).next().unwrap_or_default();
    let mut told = format!("the runtime takes {first} ({kind}), the first by name, and not {others}");
    let mut proof: Vec<usize> = files.iter().map(|(index, ..)| *index).collect();
    if let Some((index, plugin)) = installed.filter(|_| is_wrong) {
        told.push_str(&format!("; the cluster's network is {plugin}, so pods get addresses that others do not know"));
        proof.push(index);
    }
    let away = format!("mv {first} /root/");
    let repair = Repair::of(&[
        ("Move the one away that is left over, such as the first", &away),
        ("Start the pods again that have addresses of it", "kubectl get pods -A -o wide"),
    ]);
    let subject = Subject::machine(&item.place);
    let mut finding = Finding::failure(subject, item, Certainty::Likely, told, proof, repair);
    if !is_wrong {
        finding.severity = Severity::Warning;
    }
    finding
}

/// Which network the cluster has installed, by a pod of it on the machine, and what its plugin is called.
fn installed(evidence: &Evidence, place: &Place) -> Option<(usize, &'static str)> {
    const NETWORKS: [(&str, &str); 5] = [
        ("calico-node", "calico"),
        ("kube-flannel", "flannel"),
        ("cilium", "cilium"),
        ("weave-net", "weave"),
        ("antrea-agent", "antrea"),
    ];
    evidence.objects("Pod").find_map(|(index, item, pod)| {
        let is_here = item.place == *place || Place::Node(text(&pod["spec"]["nodeName"]).to_owned()) == *place;
        let name = text(&pod["metadata"]["name"]);
        let network = NETWORKS.into_iter().find(|(prefix, _)| name.starts_with(prefix));
        network.filter(|_| is_here).map(|(_, plugin)| (index, plugin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::*;

    fn file(path: &str, content: Value) -> Item {
        on("one", Fact::Document { name: "cni".to_owned(), path: path.to_owned(), content: Ok(content) })
    }

    fn severities(items: Vec<Item>) -> Vec<Severity> {
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        findings(&RULE, &evidence).into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn two_networks_are_found_and_the_wrong_one_in_front_is_a_failure() {
        let calico = || {
            file(
                "/etc/cni/net.d/10-calico.conflist",
                json!({"name": "k8s-pod-network", "plugins": [{"type": "calico"}, {"type": "portmap"}]}),
            )
        };
        let bridge = || file("/etc/cni/net.d/05-bridge.conf", json!({"name": "old", "type": "bridge"}));
        assert_eq!(severities(vec![calico(), bridge()]), [Severity::Warning]);
        let agent = on("one", Fact::Object(pod("kube-system", "calico-node-x", json!({}), json!({}))));
        assert_eq!(severities(vec![calico(), bridge(), agent]), [Severity::Failure]);
    }

    #[test]
    fn a_loopback_and_podman_s_are_none() {
        let calico = file(
            "/etc/cni/net.d/10-calico.conflist",
            json!({"name": "k8s-pod-network", "plugins": [{"type": "calico"}]}),
        );
        let loopback = file("/etc/cni/net.d/200-loopback.conf", json!({"name": "lo", "type": "loopback"}));
        let podman = file(
            "/etc/cni/net.d/87-podman-bridge.conflist",
            json!({"name": "podman", "plugins": [{"type": "bridge"}]}),
        );
        assert_eq!(severities(vec![calico, loopback, podman]), []);
    }
}
