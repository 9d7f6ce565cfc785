//! C11: a kubelet is taken for nobody, or for another machine.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::certificates::{files, is_kubelets};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[
        &["is forbidden: User \"system:anonymous\""],
        &["is forbidden: User \\\"system:anonymous\\\""],
        &["is forbidden: User \"system:node:"],
        &["is forbidden: User \\\"system:node:"],
    ],
    over: &["Successfully registered node"],
};

pub(super) const RULE: Rule = Rule {
    id: "C11",
    title: "a kubelet is taken for nobody, or for another machine",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["E1", "E2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for told in SIGN.told_where(evidence, is_mistaken) {
        let shown = files(evidence).find(|(_, item, file)| item.place == told.item.place && is_kubelets(&file.path));
        let who =
            shown.as_ref().map_or(String::new(), |(_, _, file)| format!("; its certificate says {}", file.common_name));
        let repair = Repair::of(&[
            (
                "Compare the machine's name with its certificate's",
                "hostname; openssl x509 -noout -subject -in /var/lib/kubelet/pki/kubelet-client-current.pem",
            ),
            ("If the name was changed, change it back", "hostnamectl set-hostname NAME; systemctl restart kubelet"),
            ("Or let it join anew under its new name", "kedge token create --print-join-command"),
            (
                "If the certificate is right, the API server trusts another authority",
                "grep client-ca-file /etc/kubernetes/manifests/kube-apiserver.yaml",
            ),
        ]);
        let text = format!("the kubelet says: {}{who}", told.text.trim());
        let proof = told.lines.iter().copied().chain(shown.map(|(index, _, _)| index)).collect();
        let subject = Subject::new("Component", "kubelet");
        found.push(Finding::failure(subject, told.item, Certainty::Likely, text, proof, repair));
    }
    found
}

/// Whether a machine was refused because of who it is: a node that is refused its own objects, or that is nobody. A right
/// that a node does not have is something else.
fn is_mistaken(line: &str) -> bool {
    let plain = line.replace("\\\"", "\"");
    if plain.contains("User \"system:anonymous\"") {
        return true;
    }
    let named = |before: &str| plain.split_once(before).and_then(|(_, after)| after.split('"').next());
    let user = named("User \"system:node:");
    let object = named("nodes \"")
        .or_else(|| named("leases.coordination.k8s.io \""))
        .or_else(|| named("csinodes.storage.k8s.io \""));
    matches!((user, object), (Some(user), Some(object)) if user != object)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn another_machine_and_nobody_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 "Unable to register node with API server" err="nodes \"one\" is forbidden: User \"system:anonymous\" cannot get resource \"nodes\"""#,
                ),
                (
                    "kubelet",
                    r#"nodes "one" is forbidden: User "system:node:two" cannot get resource "nodes" in API group "" at the cluster scope: node "two" cannot read "one", only its own Node object"#,
                ),
                (
                    "kubelet",
                    r#"leases.coordination.k8s.io "one" is forbidden: User "system:node:two" cannot update resource "leases""#,
                ),
            ],
            &[
                (
                    "kubelet",
                    r#"configmaps "web" is forbidden: User "system:node:one" cannot get resource "configmaps": no relationship found between node 'one' and this object"#,
                ),
                ("kubelet", r#"nodes "one" is forbidden: User "system:node:one" cannot delete resource "nodes""#),
            ],
        );
    }
}
