//! G17: the rules of Services cannot be written on a machine: every Service address is dead there, or out of date.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kube-proxy"],
    words: &[
        &["Failed to execute iptables-restore"],
        &["iptables-restore", "exit status"],
        &["holding the xtables lock"],
        &["failed to acquire", "/run/xtables.lock"],
        &["Failed to sync proxy rules", "nft"],
        &["the rules for Services can't be changed"],
    ],
    over: &["the rules for Services were gone or changed and are restored", "SyncProxyRules complete"],
};

pub(super) const RULE: Rule = Rule {
    id: "G17",
    title: "the rules of Services cannot be written on a machine",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G14", "G25"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    SIGN.found(evidence, Certainty::Proven, repair, |told| {
        format!("{} cannot write the rules of Services: {}", told.source.program(), told.text.trim())
    })
}

fn repair(told: &Told<'_>) -> Repair {
    if told.text.contains("lock") {
        return Repair::of(&[("See who holds the lock, and end it if it hangs", "fuser -v /run/xtables.lock")]);
    }
    Repair::of(&[
        (
            "Which of the two kinds of iptables writes rules here?",
            "iptables -V; iptables-legacy-save | wc -l; iptables-nft-save | wc -l",
        ),
        ("Take one for the whole machine", "update-alternatives --set iptables /usr/sbin/iptables-nft"),
        ("Are the modules there?", "modprobe -a ip_tables xt_comment xt_conntrack xt_mark nf_nat; nft list tables"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn rules_that_cannot_be_written_are_found() {
        for text in [
            "E0722 10:00:00.000000 1 proxier.go:1406] \"Failed to execute iptables-restore\" err=\"exit status 2\"",
            "Failed to execute iptables-restore: exit status 1 (iptables-restore: line 12 failed)",
            "Another app is currently holding the xtables lock; still 5s 0us time ahead to have a chance to grab the lock...",
        ] {
            assert_eq!(found_among(&RULE, [container_logged("kube-proxy", text)]).len(), 1, "{text}");
        }
        assert_eq!(
            found_among(
                &RULE,
                [logged("kedge", "WARN kedge_proxy: the rules for Services can't be changed error=nft: x")]
            )
            .len(),
            1
        );
    }

    #[test]
    fn what_passed_is_not() {
        let line = |text: &str| container_logged("kube-proxy", text);
        let failed = || line("\"Failed to execute iptables-restore\" err=\"exit status 4\"");
        assert_eq!(found_among(&RULE, [failed(), line("\"SyncProxyRules complete\" elapsed=\"20ms\"")]), [""; 0]);
        assert_eq!(found_among(&RULE, [ago(failed(), 7200)]), [""; 0]);
    }
}
