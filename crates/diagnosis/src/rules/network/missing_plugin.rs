//! G10: the runtime is told to use a CNI plugin whose executable is not there.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::network::sandbox::refused_networks;
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] = &[&["failed to find plugin", " in path ["], &["/opt/cni/bin/", "exec format error"]];

pub(super) const RULE: Rule = Rule {
    id: "G10",
    title: "a plugin of the pod network is not installed",
    layer: Layer::Network,
    explains: &[Explains { ids: &["E3", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See which plugins the machine has, and for which processor", "ls -l /opt/cni/bin; uname -m"),
        ("Install the usual ones", "apt-get install containernetworking-plugins && cp -n /usr/lib/cni/* /opt/cni/bin/"),
        ("The network's own come with its pods: start that of the machine again", ""),
    ]);
    refused_networks(evidence, FORMS, &repair, |message| match plugin(message) {
        Some((plugin, path)) => format!("the CNI configuration names the plugin {plugin}, which is not in {path}"),
        None => "a CNI plugin of the machine is not made for its processor".to_owned(),
    })
}

/// The plugin and the directories in `failed to find plugin "x" in path [/opt/cni/bin]`.
fn plugin(message: &str) -> Option<(&str, &str)> {
    let rest = message.split_once("failed to find plugin ")?.1.trim_start_matches(['\\', '"']);
    let name = rest.split(['\\', '"']).next()?;
    Some((name, rest.split_once('[')?.1.split(']').next()?))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const TEXT: &str =
        "failed to setup network for sandbox \"a\": failed to find plugin \"flannel\" in path [/opt/cni/bin]";

    #[test]
    fn a_missing_plugin_is_found_as_event_condition_and_line() {
        let told = ["the CNI configuration names the plugin flannel, which is not in /opt/cni/bin"];
        assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", TEXT)]), told);
        let escaped = "level=error msg=\"RunPodSandbox failed\" error=\"failed to setup network: failed to find plugin \\\"flannel\\\" in path [/opt/cni/bin]\"";
        assert_eq!(found_among(&RULE, [logged("containerd", escaped)]), told);
        let ready =
            json!([{"type": "Ready", "status": "False", "message": format!("Network plugin returns error: {TEXT}")}]);
        assert_eq!(found(&RULE, [node("one", ready)]), told);
        assert_eq!(
            found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", "plugin type=\"flannel\" failed")]),
            [""; 0]
        );
    }

    #[test]
    fn the_same_machine_is_named_once() {
        let web = pod("a", "web", json!({"nodeName": "one"}), json!({}));
        let item = |value| Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(value) };
        let event = event_of("Pod", "web", "FailedCreatePodSandBox", TEXT);
        assert_eq!(found_among(&RULE, [item(event), item(web), logged("containerd", TEXT)]).len(), 1);
    }
}
