//! E18: the image of pods' sandboxes cannot be pulled: the runtime has a registry of its own for it.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::lines::{says, told_of_machines};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E18",
    title: "the image of pod sandboxes cannot be pulled",
    layer: Layer::Runtime,
    explains: &[
        Explains { ids: &["W2"], scope: Scope::SameSubject },
        Explains { ids: &["A15", "D10", "W2"], scope: Scope::SameNode },
    ],
    find,
};

const FORMS: &[&[&str]] = &[
    &["failed to get sandbox image"],
    &["failed to pull image", "/pause:"],
    &["Failed to pull image", "/pause:"],
    &["failed to resolve image", "/pause:"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let found = told_by_events(evidence, &repair(), |reason, message| {
        matches!(reason, "FailedCreatePodSandBox" | "Failed") && says(message, FORMS)
    });
    if !found.is_empty() {
        return found;
    }
    told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |line| line.text.contains("RunPodSandbox for") && line.text.contains("returns sandbox id"),
        |line| (format!("no pod can start here: {line}"), repair()),
    )
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See which image the runtime wants; it is not the registry of --image-repository",
            "containerd config dump | grep -E 'sandbox(_image)? ='",
        ),
        (
            "Name one that can be pulled from here",
            "sed -ri 's#(sandbox(_image)?) = .*#\\1 = \"REGISTRY/pause:3.10\"#' /etc/containerd/config.toml && systemctl restart containerd",
        ),
        ("Or bring it here", "ctr -n k8s.io images import pause.tar"),
        ("Behind a proxy: give the runtime's unit HTTPS_PROXY and NO_PROXY", "systemctl edit containerd"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_sandbox_without_an_image_is_found() {
        let message = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image \"registry.k8s.io/pause:3.6\": failed to pull image \"registry.k8s.io/pause:3.6\": dial tcp 1.2.3.4:443: i/o timeout";
        assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", message)]).len(), 1);
        assert_eq!(found_among(&RULE, [logged("containerd", message)]).len(), 1);
    }

    #[test]
    fn an_image_of_a_container_is_something_else() {
        let message = "Failed to pull image \"docker.io/library/web:1\": not found";
        assert_eq!(found(&RULE, [event_of("Pod", "web", "Failed", message)]), [""; 0]);
    }
}
