//! Figures of attached volumes: how many are wanted where, and how many are attached.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kedge_metrics::Text;

use super::wanted::{Storage, wanted_on};
use crate::metrics::write_gauges;
use crate::pods::node_name;

fn plugin(driver: &str) -> String {
    format!("kubernetes.io/csi:{driver}")
}

/// Writes them.
pub(super) fn write(text: &mut Text, pods: &[Arc<Pod>], attachments: &[Arc<VolumeAttachment>], storage: &impl Storage) {
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = node_name(pod) {
            by_node.entry(node).or_default().push(pod.clone());
        }
    }
    let mut in_use: BTreeMap<[String; 2], f64> = BTreeMap::new();
    let mut total: BTreeMap<[String; 2], f64> = BTreeMap::new();
    for (node, pods) in by_node {
        for wanted in wanted_on(&pods, storage) {
            *in_use.entry([node.to_owned(), plugin(&wanted.driver)]).or_default() += wanted.pods.len() as f64;
            *total.entry([plugin(&wanted.driver), "desired_state_of_world".to_owned()]).or_default() += 1.0;
        }
    }
    let is_attached =
        |attachment: &&Arc<VolumeAttachment>| attachment.status.as_ref().is_some_and(|status| status.attached);
    for attachment in attachments.iter().filter(is_attached) {
        let key = [plugin(&attachment.spec.attacher), "actual_state_of_world".to_owned()];
        *total.entry(key).or_default() += 1.0;
    }
    let name = "storage_count_attachable_volumes_in_use";
    write_gauges(text, name, "Measure number of volumes in use", ["node", "volume_plugin"], &in_use);
    let name = "attachdetach_controller_total_volumes";
    write_gauges(text, name, "Number of volumes in A/D Controller", ["plugin_name", "state"], &total);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
    use serde_json::json;

    use super::*;
    use crate::metrics::shown;
    use crate::pods::fixtures::{on_node, pod};

    struct Disks;

    impl Storage for Disks {
        fn volume_of(&self, _: &Pod, claim: &str) -> Option<Arc<PersistentVolume>> {
            let csi = json!({"driver": "d.example.com", "volumeHandle": claim});
            let volume = json!({"metadata": {"name": claim}, "spec": {"csi": csi, "accessModes": ["ReadWriteMany"]}});
            Some(Arc::new(serde_json::from_value(volume).unwrap()))
        }

        fn attaches(&self, _: &str) -> bool {
            true
        }

        fn reference(&self, _: &Pod) -> ObjectReference {
            ObjectReference::default()
        }
    }

    fn user(name: &str, node: &str, claim: &str) -> Arc<Pod> {
        let mut pod = on_node(pod(name), Some(node));
        let volume = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        pod.spec.get_or_insert_default().volumes = serde_json::from_value(volume).unwrap();
        Arc::new(pod)
    }

    #[test]
    fn volumes_are_counted_by_node_and_driver() {
        let pods = [user("a", "one", "x"), user("b", "one", "x"), user("c", "two", "x")];
        let attachment = json!({"metadata": {"name": "csi"}, "status": {"attached": true},
            "spec": {"attacher": "d.example.com", "nodeName": "one", "source": {"persistentVolumeName": "x"}}});
        let attachment = Arc::new(serde_json::from_value(attachment).unwrap());
        let text = shown(|text| write(text, &pods, std::slice::from_ref(&attachment), &Disks));
        let driver = "kubernetes.io/csi:d.example.com";
        for line in [
            format!("storage_count_attachable_volumes_in_use{{node=\"one\",volume_plugin=\"{driver}\"}} 2"),
            format!("storage_count_attachable_volumes_in_use{{node=\"two\",volume_plugin=\"{driver}\"}} 1"),
            format!(
                "attachdetach_controller_total_volumes{{plugin_name=\"{driver}\",state=\"desired_state_of_world\"}} 2"
            ),
            format!(
                "attachdetach_controller_total_volumes{{plugin_name=\"{driver}\",state=\"actual_state_of_world\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
