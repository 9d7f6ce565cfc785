//! B13: somebody ends the store again and again, which is nothing to repair in the store.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::STORE;
use crate::rules::signs::{Sign, Told, is_down};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Each restart, renewal and change of a manifest ends it once.
const OFTEN: usize = 3;
const SIGN: Sign = Sign {
    programs: STORE,
    words: &[&["received signal; shutting down", "terminated"], &["received terminated signal, shutting down"]],
    over: &[],
};
/// Its own reasons to end.
const OWN: Sign = Sign {
    programs: STORE,
    words: &[&["\"level\":\"fatal\""], &["\"level\":\"panic\""], &["panic:"], &[" C | "], &["no space left on device"]],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B13",
    title: "somebody ends the store again and again",
    layer: Layer::Etcd,
    explains: &[
        Explains { ids: &["A15", "A16"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let own = OWN.told(evidence);
    let ended = |told: &Told<'_>| {
        // Nobody knows of a single end who meant it; one of an etcd that is down now may be meant, and is said softly.
        told.count >= OFTEN && !own.iter().any(|own| own.item.place == told.item.place)
    };
    let finding = |told: Told<'_>| {
        let down = is_down(evidence, &told.item.place, told.source);
        let repair = Repair::of(&[
            (
                "See who ends it: the kubelet, and why",
                "journalctl -u kubelet | grep -e Killing -e SandboxChanged -e 'will be restarted'",
            ),
            (
                "The kubelet and the runtime must agree on how control groups are made",
                "grep -r SystemdCgroup /etc/containerd; grep cgroupDriver /var/lib/kubelet/config.yaml",
            ),
            ("Leave the store's data alone", ""),
        ]);
        let now = if down { ", and does not run now" } else { "" };
        let text =
            format!("{} was told to end {} times{now}; it had no error of its own", told.source.subject(), told.count);
        Finding::failure(told.source.subject(), told.item, Certainty::Possible, text, told.lines, repair)
    };
    SIGN.told(evidence).into_iter().filter(ended).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const NEW: &str = r#"{"level":"info","msg":"received signal; shutting down","signal":"terminated"}"#;
    const OLD: &str = "2021-03-01 12:00:00.1 N | pkg/osutil: received terminated signal, shutting down...";

    #[test]
    fn an_end_is_no_trouble_and_many_are() {
        for text in [NEW, OLD] {
            let lines = |count: usize| (0..count).map(move |_| ago(line_of("etcd", text), 10));
            assert_eq!(found_among(&RULE, lines(1)), [""; 0]);
            assert_eq!(found_among(&RULE, lines(3)).len(), 1);
        }
    }

    #[test]
    fn a_store_with_an_error_of_its_own_is_something_else() {
        let fatal = ago(line_of("etcd", r#"{"level":"fatal","msg":"walpb: crc mismatch"}"#), 5);
        let ends = (0..3).map(|_| ago(line_of("etcd", NEW), 10));
        assert_eq!(found_among(&RULE, ends.chain([fatal])), [""; 0]);
    }
}
