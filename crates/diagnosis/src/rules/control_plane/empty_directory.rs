//! A8: a directory of a static pod is empty, which the kubelet made because the host path was mistyped.

use crate::action::Action;
use crate::evidence::Evidence;
use crate::facts::FileKind;
use crate::finding::Finding;
use crate::rules::control_plane::{Made, effects, host_path, made_by_the_kubelet, path_flags};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A8",
    title: "a mistyped host path made an empty directory of certificates",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let made = Made {
        volume: "DirectoryOrCreate",
        kind: FileKind::EmptyDirectory,
        what: "directory",
        remove: "rmdir",
        action: |path| Action::RemoveEmptyDirectory { path },
    };
    // Optional directories of authorities are empty on many hosts: only one that a flag looks into counts.
    made_by_the_kubelet(evidence, &made, |pod, path| {
        let below = format!("{path}/");
        path_flags(pod).any(|(_, flag)| host_path(pod, flag).is_some_and(|host| host.starts_with(&below)))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn server(path: &str, kind: FileKind) -> Vec<Item> {
        let pod = pod(
            "kube-system",
            "kube-apiserver",
            json!({
                "containers": [{
                    "name": "kube-apiserver",
                    "command": ["kube-apiserver", "--client-ca-file=/etc/kubernetes/pki/ca.crt"],
                    "volumeMounts": [{"name": "k8s-certs", "mountPath": "/etc/kubernetes/pki"}, {"name": "ca", "mountPath": "/etc/ca"}],
                }],
                "volumes": [
                    {"name": "k8s-certs", "hostPath": {"path": path, "type": "DirectoryOrCreate"}},
                    {"name": "ca", "hostPath": {"path": "/etc/ca", "type": "DirectoryOrCreate"}},
                ],
            }),
            json!({}),
        );
        vec![
            manifest("/etc/kubernetes/manifests/kube-apiserver.yaml", Ok(pod)),
            file(path, kind),
            file("/etc/ca", FileKind::EmptyDirectory),
        ]
    }

    #[test]
    fn an_empty_directory_that_flags_look_into_is_found() {
        assert_eq!(found_among(&RULE, server("/etc/kubernetes/pkii", FileKind::EmptyDirectory)).len(), 1);
    }

    #[test]
    fn full_directories_and_those_that_nobody_needs_are_right() {
        assert_eq!(found_among(&RULE, server("/etc/kubernetes/pki", FileKind::Directory)), [""; 0]);
    }
}
