//! D6: a runtime listens, and does not speak the kubelet's language.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{list, text};
use crate::rules::lines::{one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D6",
    title: "the container runtime does not speak CRI v1",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["D9", "E2", "E4", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["unknown service runtime.v1.RuntimeService"],
    &["unknown service runtime.v1.ImageService"],
    &["CRI v1 runtime API is not implemented for endpoint"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told_of_starts(
        evidence,
        |line| says(&line.text, FORMS),
        |_| {
            (
                "the runtime's socket answers, and has no CRI v1: the plugin is off, or the runtime is too old"
                    .to_owned(),
                repair(),
            )
        },
    );
    one_of_each_machine(switched_off(evidence).chain(told))
}

/// The configuration that containerd's own packages bring switches the plugin off.
fn switched_off(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let is_off = |configuration: &Value| {
        let plugins = list(&configuration["disabled_plugins"]).map(text);
        plugins
            .into_iter()
            .any(|name| matches!(name, "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.runtime"))
    };
    evidence.documents("containerd").filter(move |(_, _, configuration)| is_off(configuration)).map(
        |(index, item, _)| {
            let text = "containerd's configuration has the CRI among its disabled_plugins".to_owned();
            Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair())
        },
    )
}

fn repair() -> Repair {
    Repair::of(&[
        ("See its version: 1.6 and later speak it", "containerd --version"),
        (
            "Write its own default configuration, with systemd's cgroups, and keep the old one",
            "cp /etc/containerd/config.toml /root/containerd-config.toml; containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' > /etc/containerd/config.toml",
        ),
        ("Restart it", "systemctl restart containerd"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_plugin_that_is_off_is_found_in_the_file_and_in_the_words() {
        assert_eq!(found_among(&RULE, [document("containerd", json!({"disabled_plugins": ["cri"]}))]).len(), 1);
        assert_eq!(found_among(&RULE, [document("containerd", json!({"disabled_plugins": ["zfs"]}))]), [""; 0]);
        let new = "[ERROR CRI]: could not connect to the container runtime: failed to create new CRI runtime service: validate service connection: validate CRI v1 runtime API for endpoint \"unix:///run/containerd/containerd.sock\": rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService";
        let old = "E0102 run.go:74] \"command failed\" err=\"failed to run Kubelet: validate service connection: CRI v1 runtime API is not implemented for endpoint \\\"unix:///run/containerd/containerd.sock\\\"\"";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", new)]).len(), 1);
        assert_eq!(found_among(&RULE, [logged("kubelet", old)]).len(), 1);
        let down = "[ERROR CRI]: could not connect to the container runtime: connect: no such file or directory";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", down)]), [""; 0]);
    }
}
