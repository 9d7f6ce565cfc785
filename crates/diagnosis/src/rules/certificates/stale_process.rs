//! C2: a process goes on with a certificate that is no longer the one in its file.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::certificates::{files, served};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "C2",
    title: "a process still has the certificate from before its renewal",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "A16", "B9", "C13", "E1", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, shown, address) in served(evidence) {
        let mut same_path =
            files(evidence).filter(|(_, other, file)| other.place == item.place && file.path == shown.path);
        let Some((file, _, renewed)) = same_path.next() else { continue };
        if renewed.fingerprint == shown.fingerprint || shown.fingerprint.is_empty() || renewed.fingerprint.is_empty() {
            continue;
        }
        let is_over = shown.not_after < evidence.gathered;
        let end = if is_over { "ended" } else { "ends" };
        let text = format!(
            "{address} serves a certificate that {end} at {}; the one in {} is another and ends at {}",
            shown.not_after, renewed.path, renewed.not_after
        );
        let program = program(&renewed.path);
        let repair = Repair::of(&[(
            "Restart that process only: its container is made anew at once",
            &format!("crictl stop $(crictl ps -q --name {program})"),
        )]);
        let subject = Subject::new("Server", address);
        let finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index, file], repair);
        found.push(if is_over { finding } else { finding.warning() });
    }
    found
}

/// Who serves a file, by its name in kubeadm's layout.
fn program(path: &str) -> &'static str {
    match path {
        path if path.contains("/etcd/") => "etcd",
        path if path.ends_with("apiserver.crt") => "kube-apiserver",
        path if path.contains("kubelet") => "kubelet",
        _ => "COMPONENT",
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn renewed(fingerprint: &str) -> Item {
        let mut item = certificate("/pki/apiserver.crt", -1, 364);
        if let Fact::Certificate(file) = &mut item.fact {
            file.fingerprint = fingerprint.to_owned();
        }
        item
    }

    #[test]
    fn an_old_certificate_that_is_served_is_found() {
        let shown = |fingerprint: &str| serving("/pki/apiserver.crt", "127.0.0.1:6443", fingerprint, -400, -1);
        let texts = found_among(&RULE, [renewed("new"), shown("old")]);
        assert!(
            texts.len() == 1 && texts[0].starts_with("127.0.0.1:6443 serves a certificate that ended"),
            "{texts:?}"
        );
        assert_eq!(found_among(&RULE, [renewed("new"), shown("new")]), [""; 0]);
        assert_eq!(found_among(&RULE, [shown("old")]), [""; 0]);
    }
}
