//! Upstream's controllers that do not run here, each with the reason; `--controllers` takes their names without effect.
//!
//! Invariant: each controller of upstream's controller manager of 1.36 runs here or is in this list.

use crate::config::current_name;

/// Name and reason.
const ABSENT: [(&str, &str); 9] = [
    ("cloud-node-lifecycle-controller", "there is no cloud provider"),
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", "needs ClusterTrustBundle, off by default"),
    ("node-route-controller", "there is no cloud provider; the pod network sets routes"),
    ("podcertificaterequest-cleaner-controller", "needs PodCertificateRequest, off by default"),
    ("podgroup-protection-controller", "needs GenericWorkload, off by default"),
    ("resourcepoolstatusrequest-controller", "needs DRAResourcePoolStatus, off by default"),
    ("selinux-warning-controller", "off by default; nodes with SELinux were never tried"),
    ("storage-version-migrator-controller", "needs StorageVersionMigrator, off by default"),
    ("storageversion-garbage-collector-controller", "needs StorageVersionAPI, off by default"),
];

/// Why a controller of upstream's is not here.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(absent, _)| *absent == name).map(|(_, reason)| *reason)
}

/// The names in a `--controllers` list that ask for what is not here.
pub(crate) fn without_effect(list: &[String]) -> Vec<&str> {
    list.iter().map(|name| current_name(name)).filter(|name| reason(name).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream's `--controllers` takes.
    const UPSTREAM: [&str; 52] = [
        "bootstrap-signer-controller",
        "certificatesigningrequest-approving-controller",
        "certificatesigningrequest-cleaner-controller",
        "certificatesigningrequest-signing-controller",
        "cloud-node-lifecycle-controller",
        "clusterrole-aggregation-controller",
        "cronjob-controller",
        "daemonset-controller",
        "deployment-controller",
        "device-taint-eviction-controller",
        "disruption-controller",
        "endpoints-controller",
        "endpointslice-controller",
        "endpointslice-mirroring-controller",
        "ephemeral-volume-controller",
        "garbage-collector-controller",
        "horizontal-pod-autoscaler-controller",
        "job-controller",
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "legacy-serviceaccount-token-cleaner-controller",
        "namespace-controller",
        "node-ipam-controller",
        "node-lifecycle-controller",
        "node-route-controller",
        "persistentvolume-attach-detach-controller",
        "persistentvolume-binder-controller",
        "persistentvolume-expander-controller",
        "persistentvolume-protection-controller",
        "persistentvolumeclaim-protection-controller",
        "pod-garbage-collector-controller",
        "podcertificaterequest-cleaner-controller",
        "podgroup-protection-controller",
        "replicaset-controller",
        "replicationcontroller-controller",
        "resourceclaim-controller",
        "resourcepoolstatusrequest-controller",
        "resourcequota-controller",
        "root-ca-certificate-publisher-controller",
        "selinux-warning-controller",
        "service-cidr-controller",
        "service-lb-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
        "statefulset-controller",
        "storage-version-migrator-controller",
        "storageversion-garbage-collector-controller",
        "taint-eviction-controller",
        "token-cleaner-controller",
        "ttl-after-finished-controller",
        "ttl-controller",
        "validatingadmissionpolicy-status-controller",
        "volumeattributesclass-protection-controller",
    ];

    #[test]
    fn every_controller_of_upstreams_runs_or_has_a_reason_not_to() {
        let ours = crate::run::controller_names();
        for name in UPSTREAM {
            let (runs, absent) = (ours.contains(&name), reason(name).is_some());
            assert!(runs != absent, "{name}: runs {runs}, has a reason not to {absent}");
        }
        for name in ours.iter().chain(ABSENT.iter().map(|(name, _)| name)) {
            assert!(UPSTREAM.contains(name), "{name} is no name of upstream's");
        }
    }

    #[test]
    fn names_of_absent_controllers_are_taken_and_told() {
        let list = ["*", "-ttl", "selinux-warning-controller"].map(str::to_owned);
        assert_eq!(without_effect(&list), ["selinux-warning-controller"]);
    }
}
