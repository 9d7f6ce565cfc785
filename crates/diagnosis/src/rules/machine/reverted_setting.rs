//! F16: a setting of the kernel was written down, and something takes it back: a later file, or another program.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::text;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Settings on which pods' packets depend.
const SETTINGS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.conf.all.rp_filter",
    "fs.inotify.max_user_instances",
];

pub(super) const RULE: Rule = Rule {
    id: "F16",
    title: "a setting of the kernel is taken back",
    layer: Layer::System,
    explains: &[Explains { ids: &["D1", "D2", "E10"], scope: Scope::SameNode }],
    find,
};

/// What a file says of a setting.
struct Line<'a> {
    index: usize,
    item: &'a Item,
    path: &'a str,
    value: &'a str,
}

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut written: BTreeMap<(&Place, &str), Vec<Line<'_>>> = BTreeMap::new();
    for (index, item, content) in evidence.documents("sysctl") {
        for name in SETTINGS {
            let Some(value) = value(content, name) else { continue };
            let line = Line { index, item, path: item.origin.trim_start_matches("cat "), value };
            written.entry((&item.place, name)).or_default().push(line);
        }
    }
    written.into_iter().filter_map(|((place, name), lines)| judge(evidence, place, name, &lines)).collect()
}

/// Files in the order in which they are read: the last one wins, and what holds now may differ from it.
fn judge(evidence: &Evidence, place: &Place, name: &str, lines: &[Line<'_>]) -> Option<Finding> {
    let last = lines.last()?;
    let now = evidence.settings(name).find(|(_, item, _)| item.place == *place);
    let overruled = lines.iter().find(|line| line.value == wanted(name) && last.value != line.value);
    let (told, severity, proof) = match (overruled, now) {
        (Some(line), now) => {
            let holds = now.is_some_and(|(_, _, value)| value == Some(wanted(name)));
            let when = if holds { "after the next reboot" } else { "now" };
            let told = format!(
                "{} sets {name} to {}, and {} overrules it with {} {when}",
                line.path, line.value, last.path, last.value
            );
            (told, if holds { Severity::Warning } else { Severity::Failure }, vec![line.index, last.index])
        }
        (None, Some((index, _, Some(value)))) if last.value == wanted(name) && is_less(name, value) => {
            let told = format!(
                "{} sets {name} to {}, and it is {value}: another program set it since, or the file was not loaded",
                last.path, last.value
            );
            (told, Severity::Failure, vec![last.index, index])
        }
        _ => return None,
    };
    let repair = Repair::of(&[
        (
            "See every file that names it, in their order",
            &format!(
                "sysctl --system --dry-run 2>/dev/null | grep -E '^\\*|{name}' || grep -rn {name} /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d"
            ),
        ),
        (
            "Write it into the last one",
            &format!("echo {name}={} > /etc/sysctl.d/99-zz-kubernetes.conf && sysctl --system", wanted(name)),
        ),
    ]);
    let mut finding =
        Finding::failure(Subject::new("Setting", name), last.item, Certainty::Proven, told, proof, repair);
    finding.severity = severity;
    Some(finding)
}

/// The value with which a cluster works.
fn wanted(name: &str) -> &'static str {
    match name {
        "fs.inotify.max_user_instances" => "8192",
        "net.ipv4.conf.all.rp_filter" => "0",
        _ => "1",
    }
}

fn is_less(name: &str, value: &str) -> bool {
    match name {
        "fs.inotify.max_user_instances" => value.parse::<u64>().is_ok_and(|value| value < 8192),
        _ => value != wanted(name),
    }
}

fn value<'a>(content: &'a Value, name: &str) -> Option<&'a str> {
    let found = text(&content[name]);
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn written(path: &str, value: &str) -> Item {
        let mut item = document("sysctl", json!({"net.ipv4.ip_forward": value}));
        item.origin = format!("cat {path}");
        item
    }

    #[test]
    fn a_later_file_that_overrules_is_found() {
        let files = || [written("/etc/sysctl.d/10-k8s.conf", "1"), written("/etc/sysctl.d/99-hardening.conf", "0")];
        let found = found_among(&RULE, files().into_iter().chain([setting("net.ipv4.ip_forward", Some("1"))]));
        assert_eq!(
            found,
            [
                "/etc/sysctl.d/10-k8s.conf sets net.ipv4.ip_forward to 1, and /etc/sysctl.d/99-hardening.conf overrules it with 0 after the next reboot"
            ]
        );
        let mut right = files();
        right.reverse();
        assert_eq!(found_among(&RULE, right.into_iter().chain([setting("net.ipv4.ip_forward", Some("1"))])), [""; 0]);
    }

    #[test]
    fn a_value_that_was_set_back_is_found() {
        let file = || written("/etc/sysctl.d/10-k8s.conf", "1");
        assert_eq!(found_among(&RULE, [file(), setting("net.ipv4.ip_forward", Some("0"))]).len(), 1);
        assert_eq!(found_among(&RULE, [file(), setting("net.ipv4.ip_forward", Some("1"))]), [""; 0]);
        assert_eq!(found_among(&RULE, [setting("net.ipv4.ip_forward", Some("0"))]), [""; 0]);
    }
}
