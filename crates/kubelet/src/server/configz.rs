//! `/configz`: the configuration in the form of upstream's `KubeletConfiguration`, so that its readers understand it.
//!
//! Invariant: a field is there only if it says what this node agent does.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{CgroupDriver, Config, Reserved};
use crate::eviction::{Amount, Threshold};

/// The document.
pub(super) fn document(config: &Config) -> Value {
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => "cgroupfs",
        CgroupDriver::Systemd => "systemd",
    };
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let mut document = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": true,
        "staticPodPath": config.static_pod_path,
        "podLogsDir": config.pod_logs_dir,
        "syncFrequency": "1m0s",
        "address": config.node_ip,
        "port": config.port,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": config.anonymous_auth},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "clusterDomain": config.cluster_domain,
        "clusterDNS": dns,
        "imageGCHighThresholdPercent": config.image_gc.high_threshold_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_threshold_percent,
        "volumeStatsAggPeriod": "1m0s",
        "cgroupDriver": driver,
        "maxPods": config.max_pods,
        "podCIDR": config.pod_cidr,
        "resolvConf": config.resolv_conf,
        "serializeImagePulls": config.max_parallel_image_pulls == 1,
        "maxParallelImagePulls": config.max_parallel_image_pulls,
        "containerLogMaxSize": config.container_log_max_bytes.to_string(),
        "containerLogMaxFiles": config.container_log_max_files,
        "containerLogMonitorInterval": duration(config.container_log_monitor_interval),
        "registerNode": config.register_node,
        "registerWithTaints": config.taints,
        "enableDebuggingHandlers": true,
        "enableSystemLogHandler": config.enable_system_log_handler,
        "enableSystemLogQuery": config.enable_system_log_query,
        "enableProfilingHandler": false,
        "enableDebugFlagsHandler": false,
    });
    if let (Some(document), Value::Object(resources)) = (document.as_object_mut(), resources(config)) {
        document.extend(resources);
    }
    json!({ "kubeletconfig": document })
}

/// What pods get of the node, and when they have to go.
fn resources(config: &Config) -> Value {
    json!({
        "imageMinimumGCAge": duration(config.image_gc.minimum_age),
        "imageMaximumGCAge": duration(config.image_gc.maximum_age),
        "cgroupsPerQOS": true,
        "cpuManagerPolicy": "none",
        "memoryManagerPolicy": "None",
        "topologyManagerPolicy": "none",
        "podPidsLimit": config.pod_pids_limit,
        "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        "kubeReserved": reserved(&config.kube_reserved),
        "systemReserved": reserved(&config.system_reserved),
        "enforceNodeAllocatable": [if config.enforce_node_allocatable { "pods" } else { "none" }],
        "evictionHard": thresholds(config, true, |threshold| amount(threshold.value)),
        "evictionSoft": thresholds(config, false, |threshold| amount(threshold.value)),
        "evictionSoftGracePeriod": thresholds(config, false, |threshold| duration(threshold.grace_period)),
        "evictionMinimumReclaim": config
            .eviction
            .thresholds
            .iter()
            .filter_map(|threshold| Some((threshold.signal.name(), amount(threshold.minimum_reclaim?))))
            .collect::<BTreeMap<_, _>>(),
        "evictionPressureTransitionPeriod": duration(config.eviction.pressure_transition_period),
        "evictionMaxPodGracePeriod": config.eviction.max_pod_grace_period_seconds,
        "localStorageCapacityIsolation": config.eviction.local_storage_capacity_isolation,
    })
}

/// Go's form.
fn duration(duration: Duration) -> String {
    crate::images::go_duration(duration)
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) => bytes.to_string(),
        Amount::Percent(percent) => format!("{percent}%"),
    }
}

/// Something of the hard, or of the soft, thresholds by signal.
fn thresholds(config: &Config, hard: bool, value: impl Fn(&Threshold) -> String) -> BTreeMap<&'static str, String> {
    let chosen = config.eviction.thresholds.iter().filter(|threshold| threshold.grace_period.is_zero() == hard);
    chosen.map(|threshold| (threshold.signal.name(), value(threshold))).collect()
}

fn reserved(reserved: &Reserved) -> BTreeMap<&'static str, String> {
    let amounts = [
        ("cpu", reserved.cpu_millis, "m"),
        ("memory", reserved.memory, ""),
        ("ephemeral-storage", reserved.ephemeral_storage, ""),
        ("pid", reserved.pids, ""),
    ];
    let set = amounts.into_iter().filter(|(_, amount, _)| *amount > 0);
    set.map(|(resource, amount, suffix)| (resource, format!("{amount}{suffix}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_upstreams() {
        let document = document(&Config::default());
        let config = &document["kubeletconfig"];
        assert_eq!(config["maxPods"], 110);
        assert_eq!(config["cgroupDriver"], "cgroupfs");
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["readOnlyPort"], 0);
        assert_eq!(config["evictionHard"]["nodefs.available"], "10%");
        assert_eq!(config["evictionHard"]["memory.available"], "104857600");
        assert_eq!(config["evictionPressureTransitionPeriod"], "5m0s");
        assert_eq!(config["kubeReserved"], json!({}));
    }
}
