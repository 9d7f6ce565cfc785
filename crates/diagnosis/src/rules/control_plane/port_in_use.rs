//! A18: a component cannot have its port, because another process has it.

use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::control_plane::{component_named, effects};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kubeadm"],
    words: &[&["bind: address already in use"], &["Address already in use"], &["[ERROR Port-", "is in use"]],
    over: &["Serving securely", "ready to serve client requests"],
};

pub(super) const RULE: Rule = Rule {
    id: "A18",
    title: "another process has the port of a component",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let finding = |told: Told<'_>| {
        let port = port(told.text);
        let holder = port.and_then(|port| listener(evidence, &told.item.place, port));
        let who = match (&holder, port) {
            (Some((_, Some(process))), Some(port)) => format!("{process} has port {port}: "),
            (_, Some(port)) => format!("port {port} is taken: "),
            _ => String::new(),
        };
        let port = port.map_or("PORT".to_owned(), |port| port.to_string());
        let repair = Repair::of(&[
            ("See who has it", &format!("ss -ltnp 'sport = :{port}'")),
            ("A container of an earlier control plane is the usual one: stop what is not meant to run", "crictl ps -a"),
        ]);
        let text = format!("{} does not start: {who}{}", told.source.program(), told.text.trim());
        let proof = told.lines.iter().copied().chain(holder.map(|(index, _)| index)).collect();
        let finding = Finding::failure(told.source.subject(), told.item, Certainty::Proven, text, proof, repair);
        finding.only(component_named(told.source.program()).map_or(&[], |component| component.effects()))
    };
    // The kubelet's own port is no component's: who has it is an earlier kubelet, and D8's matter.
    SIGN.told_where(evidence, |line| !line.contains("[ERROR Port-10250")).into_iter().map(finding).collect()
}

/// The port in `:PORT: bind`, `Port PORT is in use` or `Port-PORT]`.
fn port(line: &str) -> Option<u16> {
    let before = line.split_once(": bind").map(|(before, _)| before.rsplit(':').next());
    let named = line.split_once("[ERROR Port-").map(|(_, after)| after.split(']').next());
    before.or(named).flatten()?.trim().parse().ok()
}

fn listener(evidence: &Evidence, place: &Place, port: u16) -> Option<(usize, Option<String>)> {
    let listeners = evidence.pick(|fact| match fact {
        Fact::Listener { address, process } => Some((address, process)),
        _ => None,
    });
    let end = format!(":{port}");
    let mut there = listeners.filter(|(_, item, (address, _))| item.place == *place && address.ends_with(&end));
    there.next().map(|(index, _, (_, process))| (index, process.clone()))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const TAKEN: &str = r#"E0722 10:00:00.0 1 run.go:72] "command failed" err="failed to create listener: failed to listen on 0.0.0.0:10259: listen tcp 0.0.0.0:10259: bind: address already in use""#;

    #[test]
    fn a_taken_port_is_found_in_any_programs_words() {
        check_lines(
            &RULE,
            &[
                ("kube-scheduler", TAKEN),
                (
                    "etcd",
                    r#"{"level":"fatal","msg":"discovery failed","error":"listen tcp 192.0.2.1:2380: bind: address already in use"}"#,
                ),
                ("kubeadm", "[ERROR Port-6443]: Port 6443 is in use"),
                ("kube-apiserver", "Error: cannot listen on 0.0.0.0:6443: Address already in use (os error 98)"),
            ],
            &[("web", "bind: address already in use")],
        );
    }

    #[test]
    fn its_holder_is_named() {
        let fact = Fact::Listener { address: "0.0.0.0:10259".to_owned(), process: Some("nginx".to_owned()) };
        let texts = found_among(&RULE, [line_of("kube-scheduler", TAKEN), on("one", fact)]);
        assert!(texts[0].contains("nginx has port 10259"), "{texts:?}");
    }
}
