//! Figures of volumes and claims: how many there are, and how many are bound.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use kedge_metrics::Text;

use crate::metrics::write_gauges;

/// Writes them.
pub(super) fn write(text: &mut Text, volumes: &[Arc<PersistentVolume>], claims: &[Arc<PersistentVolumeClaim>]) {
    let mut total: BTreeMap<[String; 2], f64> = BTreeMap::new();
    let mut volumes_bound: [BTreeMap<[String; 1], f64>; 2] = Default::default();
    for volume in volumes {
        let none = PersistentVolumeSpec::default();
        let spec = volume.spec.as_ref().unwrap_or(&none);
        let mode = spec.volume_mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
        *total.entry([plugin(spec), mode]).or_default() += 1.0;
        let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let class = spec.storage_class_name.clone().unwrap_or_default();
        *volumes_bound[usize::from(!is_bound)].entry([class]).or_default() += 1.0;
    }
    let mut claims_bound: [BTreeMap<[String; 3], f64>; 2] = Default::default();
    for claim in claims {
        let of_spec = |field: fn(&k8s_openapi::api::core::v1::PersistentVolumeClaimSpec) -> Option<String>| {
            claim.spec.as_ref().and_then(field).unwrap_or_default()
        };
        let key = [
            claim.metadata.namespace.clone().unwrap_or_default(),
            of_spec(|spec| spec.storage_class_name.clone()),
            of_spec(|spec| spec.volume_attributes_class_name.clone()),
        ];
        let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        *claims_bound[usize::from(!is_bound)].entry(key).or_default() += 1.0;
    }
    let help = "Gauge measuring total number of persistent volumes";
    write_gauges(text, "pv_collector_total_pv_count", help, ["plugin_name", "volume_mode"], &total);
    for (state, volumes) in ["bound", "unbound"].into_iter().zip(&volumes_bound) {
        let help = format!("Gauge measuring number of persistent volume currently {state}");
        write_gauges(text, &format!("pv_collector_{state}_pv_count"), &help, ["storage_class"], volumes);
    }
    let labels = ["namespace", "storage_class", "volume_attributes_class"];
    for (state, claims) in ["bound", "unbound"].into_iter().zip(&claims_bound) {
        let help = format!("Gauge measuring number of persistent volume claim currently {state}");
        write_gauges(text, &format!("pv_collector_{state}_pvc_count"), &help, labels, claims);
    }
}

/// The name of what provides a volume, as upstream's plugins call themselves.
fn plugin(spec: &PersistentVolumeSpec) -> String {
    let named = [
        ("kubernetes.io/host-path", spec.host_path.is_some()),
        ("kubernetes.io/local-volume", spec.local.is_some()),
        ("kubernetes.io/nfs", spec.nfs.is_some()),
        ("kubernetes.io/iscsi", spec.iscsi.is_some()),
        ("kubernetes.io/fc", spec.fc.is_some()),
    ];
    match &spec.csi {
        Some(csi) => format!("kubernetes.io/csi:{}", csi.driver),
        None => named.into_iter().find(|(_, is_it)| *is_it).map_or("N/A", |(name, _)| name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::shown;

    fn volume(source: Value, phase: &str) -> Arc<PersistentVolume> {
        let mut value =
            json!({"metadata": {"name": "v"}, "spec": {"storageClassName": "fast"}, "status": {"phase": phase}});
        value["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn volumes_and_claims_are_counted_by_state() {
        let csi = json!({"csi": {"driver": "d.example.com", "volumeHandle": "x"}});
        let volumes = [
            volume(csi.clone(), "Bound"),
            volume(csi, "Released"),
            volume(json!({"local": {"path": "/x"}, "volumeMode": "Block"}), "Bound"),
        ];
        let claim = json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {"storageClassName": "fast"},
            "status": {"phase": "Pending"}});
        let claim = Arc::new(serde_json::from_value(claim).unwrap());
        let text = shown(|text| write(text, &volumes, std::slice::from_ref(&claim)));
        for line in [
            "pv_collector_total_pv_count{plugin_name=\"kubernetes.io/csi:d.example.com\",volume_mode=\"Filesystem\"} 2",
            "pv_collector_total_pv_count{plugin_name=\"kubernetes.io/local-volume\",volume_mode=\"Block\"} 1",
            "pv_collector_bound_pv_count{storage_class=\"fast\"} 2",
            "pv_collector_unbound_pv_count{storage_class=\"fast\"} 1",
            "pv_collector_unbound_pvc_count{namespace=\"d\",storage_class=\"fast\",volume_attributes_class=\"\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
