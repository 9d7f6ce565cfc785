//! C3: a kubelet's own certificate ended, and it has nothing to ask for another with.

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::certificates::{files, is_kubelets};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[
        &["part of the existing bootstrap client certificate in", "is expired"],
        &["Part of the existing bootstrap client certificate", "expired"],
        &["unable to load bootstrap kubeconfig"],
        &["bootstrap-kubelet.conf: no such file or directory"],
        &["has expired, so this node cannot ask for another one"],
    ],
    over: &["Successfully registered node", "Node has successfully registered"],
};

pub(super) const RULE: Rule = Rule {
    id: "C3",
    title: "a kubelet's certificate ended while nobody renewed it",
    layer: Layer::System,
    explains: &[Explains { ids: &["C4", "C5", "C11", "E1", "E2", "E6", "D9"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let ended = files(evidence).filter(|(_, _, file)| is_kubelets(&file.path) && file.not_after < evidence.gathered);
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, file) in ended {
        if found.iter().any(|known| known.place == item.place) {
            continue;
        }
        let text = format!(
            "{} ({}) ended at {}: the kubelet cannot say who it is",
            file.path, file.common_name, file.not_after
        );
        let subject = Subject::new("Certificate", &file.path);
        let repair = repair(file.common_name.trim_start_matches("system:node:"), renewal(evidence, &item.place));
        found.push(Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair));
    }
    for told in SIGN.told(evidence) {
        if found.iter().all(|known| known.place != told.item.place) {
            let repair = repair("NODE", renewal(evidence, &told.item.place));
            found.push(of_line(told, repair));
        }
    }
    found
}

fn of_line(told: Told<'_>, repair: Repair) -> Finding {
    let text = format!("the kubelet says: {}", told.text.trim());
    let subject = Subject::new("Component", "kubelet");
    Finding::failure(subject, told.item, Certainty::Likely, text, told.lines, repair)
}

/// The one command that the machine itself knows, where it is one of Kedge's workers.
fn renewal<'a>(evidence: &'a Evidence, place: &Place) -> Option<&'a str> {
    let own = evidence.documents("kubeconfig").filter(|(_, item, _)| item.place == *place);
    own.filter_map(|(_, _, config)| config["renewal"].as_str()).next()
}

fn repair(node: &str, renewal: Option<&str>) -> Repair {
    if let Some(command) = renewal {
        return Repair::of(&[
            ("On a machine of the control plane: make a token", "kedge token create"),
            ("On this machine, with that token: get another certificate; pods and configuration stay", command),
        ]);
    }
    Repair::of(&[
        (
            "On a machine of the control plane: sign another",
            &format!("kubeadm kubeconfig user --org system:nodes --client-name system:node:{node} > kubelet.conf"),
        ),
        (
            "Put it on the machine and restart its kubelet",
            "cp kubelet.conf /etc/kubernetes/kubelet.conf; systemctl restart kubelet",
        ),
        (
            "Once it runs, let its kubeconfig name the file that is renewed by itself, and not a copy",
            "grep client-certificate /etc/kubernetes/kubelet.conf # /var/lib/kubelet/pki/kubelet-client-current.pem",
        ),
        ("Or join it anew, with a token", "kedge token create --print-join-command"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_ended_certificate_of_a_kubelet_is_found() {
        let path = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        assert_eq!(found_among(&RULE, [certificate(path, -400, -1)]).len(), 1);
        assert_eq!(found_among(&RULE, [certificate(path, -300, 65)]), [""; 0]);
        assert_eq!(found_among(&RULE, [certificate("/etc/kubernetes/pki/apiserver.crt", -400, -1)]), [""; 0]);
    }

    #[test]
    fn a_worker_is_told_the_one_command() {
        let path = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        let command = "kedge join a:6443 --renew --discovery-token-ca-cert-hash sha256:aa --token <token>";
        let steps = |items: Vec<Item>| {
            let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
            let found = (RULE.find)(&evidence);
            found[0].repair.steps.iter().filter_map(|step| step.command.clone()).collect::<Vec<_>>()
        };
        let config = |renewal: Value| document("kubeconfig", json!({"server": "https://a:6443", "renewal": renewal}));
        let ended = || certificate(path, -400, -1);
        assert_eq!(steps(vec![ended(), config(json!(command))]), ["kedge token create", command]);
        let said =
            logged("kubelet", "the client certificate in /a has expired, so this node cannot ask for another one");
        assert_eq!(steps(vec![said, config(json!(command))])[1], command);
        // A control plane, and a node that others made.
        assert_eq!(steps(vec![ended(), config(Value::Null)]).len(), 4);
    }

    #[test]
    fn the_kubelets_words_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 bootstrap.go:265] part of the existing bootstrap client certificate in /etc/kubernetes/kubelet.conf is expired: 2026-07-21 10:00:00 +0000 UTC"#,
                ),
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 run.go:72] "command failed" err="failed to run Kubelet: unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf: no such file or directory""#,
                ),
            ],
            &[("kubelet", r#"I0722 10:00:00.0 1 bootstrap.go:101] "Use the bootstrap credentials to request a cert""#)],
        );
    }
}
