//! Upstream's names of controllers' work queues, by which their metrics are known.
//!
//! Pure. Invariant: a controller that has no queue upstream goes by its own name.

const NAMES: [(&str, &str); 28] = [
    ("bootstrap-signer-controller", "bootstrap_signer_queue"),
    ("certificatesigningrequest-approving-controller", "certificate"),
    ("clusterrole-aggregation-controller", "ClusterRoleAggregator"),
    ("cronjob-controller", "cronjob"),
    ("daemonset-controller", "daemonset"),
    ("deployment-controller", "deployment"),
    ("disruption-controller", "disruption"),
    ("endpoints-controller", "endpoint"),
    ("endpointslice-controller", "endpoint_slice"),
    ("endpointslice-mirroring-controller", "endpoint_slice_mirroring"),
    ("ephemeral-volume-controller", "ephemeral_volume"),
    ("garbage-collector-controller", "garbage_collector_attempt_to_delete"),
    ("horizontal-pod-autoscaler-controller", "horizontalpodautoscaler"),
    ("job-controller", "job"),
    ("namespace-controller", "namespace"),
    ("node-lifecycle-controller", "node_lifecycle_controller"),
    ("persistentvolume-binder-controller", "claims"),
    ("persistentvolume-expander-controller", "volume_expand"),
    ("persistentvolume-protection-controller", "pvprotection"),
    ("persistentvolumeclaim-protection-controller", "pvcprotection"),
    ("pod-garbage-collector-controller", "orphaned_pods_nodes"),
    ("replicaset-controller", "replicaset"),
    ("replicationcontroller-controller", "replicationmanager"),
    ("resourceclaim-controller", "resource_claim"),
    ("resourcequota-controller", "resourcequota_primary"),
    ("root-ca-certificate-publisher-controller", "root_ca_cert_publisher"),
    ("serviceaccount-controller", "serviceaccount"),
    ("statefulset-controller", "statefulset"),
];
const MORE: [(&str, &str); 7] = [
    ("service-lb-controller", "service"),
    ("serviceaccount-token-controller", "serviceaccount_tokens_service"),
    ("taint-eviction-controller", "noexec_taint_pod"),
    ("token-cleaner-controller", "token_cleaner"),
    ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
    ("ttl-controller", "ttlcontroller"),
    ("volumeattributesclass-protection-controller", "vacprotection"),
];

/// The name of a controller's queue.
pub(crate) fn queue_name(controller: &'static str) -> &'static str {
    let found = NAMES.iter().chain(&MORE).find(|(known, _)| *known == controller);
    found.map_or(controller, |(_, queue)| queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_upstreams_names_and_are_told_apart() {
        for (controller, queue) in [
            ("deployment-controller", "deployment"),
            ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
            ("service-cidr-controller", "service-cidr-controller"),
        ] {
            assert_eq!(queue_name(controller), queue);
        }
        let mut queues: Vec<&str> = NAMES.iter().chain(&MORE).map(|(_, queue)| *queue).collect();
        queues.sort_unstable();
        let all = queues.len();
        queues.dedup();
        assert_eq!(queues.len(), all);
        let known = crate::run::controller_names();
        for (controller, _) in NAMES.iter().chain(&MORE) {
            assert!(known.contains(controller), "there is no {controller}");
        }
    }
}
