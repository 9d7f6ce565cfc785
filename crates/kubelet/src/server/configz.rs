//! `/configz`: the configuration in the form of upstream's `KubeletConfiguration`, so that its readers understand it.
//!
//! Invariant: a field is there only if it says what this node agent does.

use serde_json::{Value, json};

use crate::config::{CgroupDriver, Config};

/// The document.
pub(super) fn document(config: &Config) -> Value {
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => "cgroupfs",
        CgroupDriver::Systemd => "systemd",
    };
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    json!({"kubeletconfig": {
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
        "registerNode": config.register_node,
        "registerWithTaints": config.taints,
        "enableDebuggingHandlers": true,
        "enableSystemLogHandler": config.enable_system_log_handler,
        "enableSystemLogQuery": config.enable_system_log_query,
        "enableProfilingHandler": false,
        "enableDebugFlagsHandler": false,
    }})
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
    }
}
