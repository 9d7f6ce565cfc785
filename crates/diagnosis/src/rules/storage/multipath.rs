//! I7: the multipath daemon took a volume's device for one of its own, so nothing else can use it.

use serde_json::Value;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{list, text};
use crate::rules::events::told_of_nodes;
use crate::rules::lines::{is_service_running, says};
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] =
    &[&["already mounted or mount point busy"], &["already mounted or", " busy"], &["apparently in use by the system"]];

pub(super) const RULE: Rule = Rule {
    id: "I7",
    title: "the multipath daemon holds the device of a volume",
    layer: Layer::System,
    explains: &[Explains { ids: &["I6", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See which devices it holds", "multipath -ll; lsblk"),
        (
            "Let it leave plain disks alone, where no disk of the machine needs it",
            "printf 'blacklist {\\n    devnode \"^sd[a-z0-9]+\"\\n}\\n' >> /etc/multipath.conf && systemctl restart multipathd",
        ),
        ("Start the pod again", "kubectl delete pod NAME"),
    ]);
    let wanted =
        |reason: &str, message: &str| matches!(reason, "FailedMount" | "FailedMapVolume") && says(message, FORMS);
    let mut found = told_of_nodes(evidence, &repair, wanted, |_, message| {
        format!("a volume's device is in use by something else, most often the multipath daemon: {message}")
    });
    found.retain_mut(|finding| match daemon(evidence, &finding.place) {
        Daemon::Holds(index) => {
            finding.certainty = Certainty::Proven;
            finding.evidence.push(index);
            true
        }
        Daemon::Runs => {
            finding.certainty = Certainty::Likely;
            true
        }
        Daemon::Unknown => {
            finding.certainty = Certainty::Possible;
            true
        }
        Daemon::Away => false,
    });
    found
}

/// What is known of the daemon on a machine.
enum Daemon {
    /// It has devices; the item says which.
    Holds(usize),
    /// It runs.
    Runs,
    /// It does not.
    Away,
    /// Nobody looked.
    Unknown,
}

fn daemon(evidence: &Evidence, place: &Place) -> Daemon {
    let holds = |maps: &Value| list(&maps["maps"]).any(|map| text(&map["uuid"]).starts_with("mpath-"));
    let maps = evidence.documents("multipath").find(|(_, item, maps)| item.place == *place && holds(maps));
    match (maps, is_service_running(evidence, place, "multipathd")) {
        (Some((index, _, _)), _) => Daemon::Holds(index),
        (None, Some(true)) => Daemon::Runs,
        (None, Some(false)) => Daemon::Away,
        (None, None) => Daemon::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::*;

    fn certainty(items: Vec<Item>) -> Vec<Certainty> {
        let message = "MountVolume.MountDevice failed for volume \"pvc-1\" : rpc error: code = Internal desc = mount failed: exit status 32\nOutput: mount: /var/lib/kubelet/x: /dev/sdb already mounted or mount point busy.";
        let mut event = event_of("Pod", "db", "FailedMount", message);
        event["source"] = json!({"component": "kubelet", "host": "one"});
        let event = Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(event) };
        let items: Vec<Item> = [event].into_iter().chain(items).collect();
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        find(&evidence).into_iter().map(|finding| finding.certainty).collect()
    }

    #[test]
    fn the_daemon_makes_it_sure_and_its_absence_is_something_else() {
        assert_eq!(certainty(vec![]), [Certainty::Possible]);
        assert_eq!(certainty(vec![unit("multipathd", "active", "enabled")]), [Certainty::Likely]);
        assert_eq!(certainty(vec![unit("multipathd", "inactive", "disabled")]), []);
        let maps =
            document("multipath", json!({"maps": [{"name": "mpatha", "uuid": "mpath-3600", "devices": ["sdb"]}]}));
        assert_eq!(certainty(vec![maps]), [Certainty::Proven]);
    }

    #[test]
    fn old_and_new_wordings_are_found_and_others_are_not() {
        let event = |message: &str| event_of("Pod", "db", "FailedMount", message);
        assert_eq!(found(&RULE, [event("format of disk failed: mke2fs: /dev/sdb is apparently in use by the system; will not make a filesystem here!")]).len(), 1);
        assert_eq!(found(&RULE, [event("mount: /dev/sdb is already mounted or /mnt busy")]).len(), 1);
        assert_eq!(found(&RULE, [event("configmap \"x\" not found")]), [""; 0]);
    }
}
