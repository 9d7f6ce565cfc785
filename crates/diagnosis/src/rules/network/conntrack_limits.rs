//! G18: the proxy of Services ends at its start, because it may not set the limits of tracked connections.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kube-proxy"],
    words: &[
        &["could not set conntrack parameters"],
        &["/proc/sys/net/netfilter/nf_conntrack_max: permission denied"],
        &["/proc/sys/net/netfilter/nf_conntrack_max: read-only file system"],
        &["/sys/module/nf_conntrack/parameters/hashsize", "permission denied"],
    ],
    over: &["Starting service config controller", "\"Starting\" controller=\"service config\""],
};

pub(super) const RULE: Rule = Rule {
    id: "G18",
    title: "the proxy of Services may not set the limits of tracked connections",
    layer: Layer::Network,
    explains: &[
        Explains { ids: &["W1"], scope: Scope::SameSubject },
        Explains { ids: &["G14", "G25"], scope: Scope::Anywhere },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "In a machine that is itself a container: leave the limits as they are (maxPerCore: 0, min: 0 under conntrack)",
            "kubectl -n kube-system edit configmap kube-proxy",
        ),
        ("Start it again", "kubectl -n kube-system rollout restart daemonset kube-proxy"),
    ]);
    SIGN.found(
        evidence,
        Certainty::Proven,
        |_| repair.clone(),
        |told| format!("kube-proxy ends at its start: {}", told.text.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_proxy_without_the_right_is_found_and_one_that_started_is_not() {
        let line = |text: &str| container_logged("kube-proxy", text);
        let new = "E0722 10:00:00.0 1 run.go:72] \"command failed\" err=\"could not set conntrack parameters from kube-proxy configuration: open /proc/sys/net/netfilter/nf_conntrack_max: permission denied\"";
        let old = "F0722 10:00:00.0 1 server.go:490] open /proc/sys/net/netfilter/nf_conntrack_max: permission denied";
        assert_eq!(found_among(&RULE, [line(new)]).len(), 1);
        assert_eq!(found_among(&RULE, [line(old)]).len(), 1);
        assert_eq!(
            found_among(
                &RULE,
                [line(new), line("I0722 10:00:01.0 1 config.go:317] \"Starting service config controller\"")]
            ),
            [""; 0]
        );
    }
}
