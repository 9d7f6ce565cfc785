//! A12: a file of the directory of static pods holds no pod.

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::control_plane::{component_of_file, effects};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A12",
    title: "a manifest of a static pod cannot be read",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let broken = evidence.manifests().filter_map(|(index, item, manifest)| {
        let why = manifest.pod.as_ref().err()?;
        let repair = Repair::of(&[
            ("See what is wrong with it", &format!("kubectl apply --dry-run=client -f {}", manifest.path)),
            (
                "Restore it from a copy, or from what `kedge init` would write",
                "kedge init phase control-plane all --dry-run",
            ),
        ])
        .acting(1, Action::RestoreManifest { path: manifest.path.clone() });
        let text = format!("{} is no pod: {why}", manifest.path);
        let subject = Subject::new("File", &manifest.path);
        let finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair);
        Some(finding.only(component_of_file(&manifest.path).map_or(&[], |component| component.effects())))
    });
    broken.collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_file_that_is_no_pod_is_found_and_a_pod_is_not() {
        let broken =
            manifest("/etc/kubernetes/manifests/kube-scheduler.yaml", Err("line 3: mapping values".to_owned()));
        assert_eq!(found_among(&RULE, [broken]).len(), 1);
        assert_eq!(
            found_among(&RULE, scheduler_manifest("--v=2", "/etc/kubernetes/scheduler.conf", "FileOrCreate")),
            [""; 0]
        );
    }
}
