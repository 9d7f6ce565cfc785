//! `/configz` of the controller manager and the scheduler: the settings in force, as objects of upstream's kinds.
//!
//! Invariant: only what has an effect here is shown; upstream's other fields are left out.

use kedge_lifecycle::go_duration;
use serde_json::{Value, json};

use super::controller_manager::{ControllerManagerOptions, SigningFiles};
use super::{HealthOptions, LeaderOptions};

/// Name and object of what a component shows.
pub(super) type Shown = (&'static str, Value);

/// A `KubeControllerManagerConfiguration`.
pub(super) fn controller_manager(options: &ControllerManagerOptions, config: &kedge_controllers::Config) -> Shown {
    let syncs = config.concurrency;
    let signing = &options.cluster_signing;
    let autoscaler = &config.autoscaler;
    let object = json!({
        "apiVersion": "kubecontrollermanager.config.k8s.io/v1alpha1",
        "kind": "KubeControllerManagerConfiguration",
        "Generic": generic(&options.health, &options.leader, &config.controllers, &options.kubeconfig.to_string_lossy()),
        "KubeCloudShared": {
            "UseServiceAccountCredentials": options.use_service_account_credentials,
            "AllocateNodeCIDRs": options.allocate_node_cidrs,
            "ClusterCIDR": config.cluster_cidrs.join(","),
            "NodeMonitorPeriod": go_duration(config.node_monitor_period),
        },
        "CSRSigningController": {
            "ClusterSigningCertFile": files(&signing.all)["CertFile"],
            "ClusterSigningKeyFile": files(&signing.all)["KeyFile"],
            "KubeletServingSignerConfiguration": files(&signing.kubelet_serving),
            "KubeletClientSignerConfiguration": files(&signing.kubelet_client),
            "KubeAPIServerClientSignerConfiguration": files(&signing.kube_apiserver_client),
            "LegacyUnknownSignerConfiguration": files(&signing.legacy_unknown),
            "ClusterSigningDuration": go_duration(config.cluster_signing_duration),
        },
        "DaemonSetController": {"ConcurrentDaemonSetSyncs": syncs},
        "DeploymentController": {"ConcurrentDeploymentSyncs": syncs},
        "StatefulSetController": {"ConcurrentStatefulSetSyncs": syncs},
        "ReplicaSetController": {"ConcurrentRSSyncs": syncs},
        "JobController": {"ConcurrentJobSyncs": syncs},
        "HPAController": {
            "ConcurrentHorizontalPodAutoscalerSyncs": autoscaler.concurrency,
            "HorizontalPodAutoscalerSyncPeriod": go_duration(autoscaler.sync_period),
            "HorizontalPodAutoscalerDownscaleStabilizationWindow": go_duration(autoscaler.downscale_stabilization),
            "HorizontalPodAutoscalerTolerance": autoscaler.tolerance,
            "HorizontalPodAutoscalerCPUInitializationPeriod": go_duration(autoscaler.cpu_initialization_period),
            "HorizontalPodAutoscalerInitialReadinessDelay": go_duration(autoscaler.initial_readiness_delay),
        },
        "LegacySATokenCleaner": {"CleanUpPeriod": go_duration(config.legacy_token_clean_up_period)},
        "NodeIPAMController": {
            "NodeCIDRMaskSizeIPv4": config.node_cidr_mask_ipv4,
            "NodeCIDRMaskSizeIPv6": config.node_cidr_mask_ipv6,
        },
        "NodeLifecycleController": {
            "NodeEvictionRate": config.node_eviction_rate,
            "SecondaryNodeEvictionRate": config.secondary_node_eviction_rate,
            "NodeStartupGracePeriod": go_duration(config.node_startup_grace_period),
            "NodeMonitorGracePeriod": go_duration(config.node_monitor_grace_period),
            "LargeClusterSizeThreshold": config.large_cluster_size_threshold,
            "UnhealthyZoneThreshold": config.unhealthy_zone_threshold,
        },
        "PodGCController": {"TerminatedPodGCThreshold": config.terminated_pod_gc_threshold},
        "SAController": {
            "ServiceAccountKeyFile": path(options.service_account_private_key_file.as_ref()),
            "RootCAFile": path(options.root_ca_file.as_ref()),
        },
    });
    ("kubecontrollermanager.config.k8s.io", object)
}

/// A `KubeSchedulerConfiguration`: the file's, with what flags say about leadership.
pub(super) fn scheduler(
    configuration: &kedge_scheduler::KubeSchedulerConfiguration,
    leader: &LeaderOptions,
    kubeconfig: Option<&std::path::Path>,
) -> Shown {
    let mut object = serde_json::to_value(configuration).unwrap_or_default();
    prune(&mut object);
    object["leaderElection"] = leader_election(leader);
    if let Some(kubeconfig) = kubeconfig {
        object["clientConnection"]["kubeconfig"] = kubeconfig.to_string_lossy().into();
    }
    ("componentconfig", object)
}

fn generic(health: &HealthOptions, leader: &LeaderOptions, controllers: &[String], kubeconfig: &str) -> Value {
    json!({
        "Port": health.secure_port,
        "Address": health.bind_address.to_string(),
        "ClientConnection": {"kubeconfig": kubeconfig},
        "LeaderElection": leader_election(leader),
        "Controllers": controllers,
    })
}

fn leader_election(leader: &LeaderOptions) -> Value {
    json!({
        "leaderElect": leader.elect,
        "leaseDuration": go_duration(leader.lease_duration),
        "renewDeadline": go_duration(leader.renew_deadline),
        "retryPeriod": go_duration(leader.retry_period),
        "resourceLock": "leases",
        "resourceName": leader.resource_name,
        "resourceNamespace": leader.resource_namespace,
    })
}

/// Takes out what says nothing.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !says_nothing(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn files(files: &SigningFiles) -> Value {
    json!({"CertFile": path(files.certificate.as_ref()), "KeyFile": path(files.key.as_ref())})
}

fn path(path: Option<&std::path::PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_schedulers_file_is_shown_with_its_flags() {
        let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                    profiles: [{schedulerName: mine, plugins: {score: {disabled: [{name: '*'}]}}}]\n\
                    extenders: [{urlPrefix: https://x, enableHTTPS: true, tlsConfig: {keyData: c2VjcmV0}}]\n";
        let file = kedge_scheduler::KubeSchedulerConfiguration::from_yaml(text).unwrap();
        let leader = LeaderOptions {
            elect: true,
            lease_duration: Duration::from_secs(90),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            resource_name: "kube-scheduler".to_owned(),
            resource_namespace: "kube-system".to_owned(),
        };
        let (name, object) = scheduler(&file, &leader, Some(Path::new("/k")));
        assert_eq!((name, &object["kind"]), ("componentconfig", &json!("KubeSchedulerConfiguration")));
        assert_eq!(object["profiles"][0]["plugins"], json!({"score": {"disabled": [{"name": "*"}]}}));
        assert_eq!(object["leaderElection"]["leaseDuration"], "1m30s");
        assert_eq!(object["clientConnection"], json!({"kubeconfig": "/k"}));
        assert_eq!(object["extenders"][0]["enableHTTPS"], true);
        assert!(!object.to_string().contains("c2VjcmV0"), "keys are nobody's business");
        let again = kedge_scheduler::KubeSchedulerConfiguration::from_yaml(&object.to_string());
        assert!(again.is_ok(), "what is shown can be read: {again:?}");
    }
}
