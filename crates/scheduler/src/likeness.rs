//! What pods have in common that filters, preemption and queueing hints can't tell apart.
//!
//! Invariant: pods of the same likeness get the same answers about the same nodes. Whoever has a claim, a device or a
//! disk of its own is like nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodSpec, Toleration, TopologySpreadConstraint, Volume};
use serde::Serialize;

use crate::plugins::needed_features;
use crate::pod_info::PodInfo;

/// What a pod is like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Likeness {
    key: Arc<str>,
    is_shared: bool,
}

/// Everything of a pod's specification that is asked where nodes are chosen, besides what it asks for.
#[derive(Serialize)]
struct Said<'a> {
    scheduler: Option<&'a String>,
    preemption: Option<&'a String>,
    selector: Option<&'a BTreeMap<String, String>>,
    affinity: Option<&'a Affinity>,
    tolerations: Option<&'a Vec<Toleration>>,
    spread: Option<&'a Vec<TopologySpreadConstraint>>,
    features: Vec<&'static str>,
}

impl Likeness {
    /// The likeness of a pod that waits for a node.
    pub(crate) fn of(pod: &PodInfo) -> Self {
        let Some(spec) = pod.pod().spec.as_ref().filter(|spec| has_nothing_of_its_own(spec)) else {
            return Self { key: format!("{}\0{}", pod.key, pod.uid).into(), is_shared: false };
        };
        let said = Said {
            scheduler: spec.scheduler_name.as_ref(),
            preemption: spec.preemption_policy.as_ref(),
            selector: spec.node_selector.as_ref(),
            affinity: spec.affinity.as_ref(),
            tolerations: spec.tolerations.as_ref(),
            spread: spec.topology_spread_constraints.as_ref(),
            features: needed_features(spec),
        };
        let said = serde_json::to_string(&said).unwrap_or_default();
        let asked = format!("{}\0{:?}\0{:?}", pod.priority, pod.requests, pod.host_ports);
        Self { key: format!("{}\0{asked}\0{said}", pod.shape.key()).into(), is_shared: true }
    }

    /// Whether other pods can be like this one.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }
}

fn has_nothing_of_its_own(spec: &PodSpec) -> bool {
    let is_plain = |volume: &Volume| {
        volume.config_map.is_some()
            || volume.downward_api.is_some()
            || volume.empty_dir.is_some()
            || volume.host_path.is_some()
            || volume.projected.is_some()
            || volume.secret.is_some()
    };
    spec.volumes.iter().flatten().all(is_plain) && spec.resource_claims.iter().flatten().next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::pod;
    use serde_json::{Value, json};

    fn likeness(name: &str, more: &Value) -> Likeness {
        let mut value = json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
            "volumes": [{"name": format!("token-of-{name}"), "projected": {}}]}});
        for (key, part) in more.as_object().into_iter().flatten() {
            value["spec"][key] = part.clone();
        }
        Likeness::of(&pod(value))
    }

    #[test]
    fn pods_are_alike_in_what_decides_where_they_run() {
        let plain = likeness("a", &json!({}));
        assert!(plain.is_shared());
        assert_eq!(plain, likeness("b", &json!({})), "the names of their tokens do not matter");
        for more in [
            json!({"priority": 5}),
            json!({"preemptionPolicy": "Never"}),
            json!({"nodeSelector": {"zone": "a"}}),
            json!({"tolerations": [{"operator": "Exists"}]}),
            json!({"schedulerName": "other"}),
            json!({"hostNetwork": true, "hostUsers": false}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}),
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
                "resources": {"requests": {"cpu": "1"}}}]}),
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
        ] {
            assert_ne!(plain, likeness("b", &more), "{more}");
        }
    }

    #[test]
    fn who_has_something_of_its_own_is_like_nobody() {
        for more in [
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            json!({"volumes": [{"name": "v", "ephemeral": {}}]}),
            json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}),
        ] {
            let one = likeness("a", &more);
            assert!(!one.is_shared(), "{more}");
            assert_ne!(one, likeness("b", &more), "{more}");
        }
    }
}
