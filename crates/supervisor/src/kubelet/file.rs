//! The kubelet's configuration file: `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1`.
//!
//! Pure. Invariant: a field that upstream does not know is an error; one that upstream knows and this kubelet does not use
//! is named, so that nobody takes it for granted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// What is read of the file. Absent fields leave the default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubeletFile {
    api_version: String,
    kind: String,
    pub(crate) static_pod_path: Option<PathBuf>,
    pub(crate) pod_logs_dir: Option<PathBuf>,
    pub(crate) port: Option<u16>,
    pub(crate) tls_cert_file: Option<PathBuf>,
    pub(crate) tls_private_key_file: Option<PathBuf>,
    pub(crate) authentication: Authentication,
    pub(crate) cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub(crate) cluster_dns: Option<Vec<IpAddr>>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub(crate) image_gc_high_threshold_percent: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub(crate) image_gc_low_threshold_percent: Option<u8>,
    pub(crate) cgroup_driver: Option<kedge_kubelet::CgroupDriver>,
    pub(crate) max_pods: Option<u32>,
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Option<String>,
    pub(crate) resolv_conf: Option<PathBuf>,
    pub(crate) max_parallel_image_pulls: Option<usize>,
    pub(crate) container_log_max_size: Option<String>,
    pub(crate) container_log_max_files: Option<u32>,
    pub(crate) register_node: Option<bool>,
    pub(crate) register_with_taints: Option<Vec<Taint>>,
    pub(crate) container_runtime_endpoint: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Authentication {
    pub(crate) x509: X509,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct X509 {
    #[serde(rename = "clientCAFile")]
    pub(crate) client_ca_file: Option<PathBuf>,
}

/// Fields of upstream's that have no effect here, with spaces between them.
const UNUSED: &str = "address allowedUnsafeSysctls authorization cgroupRoot cgroupsPerQOS \
    configMapAndSecretChangeDetectionStrategy containerLogMaxWorkers containerLogMonitorInterval contentType \
    cpuCFSQuota cpuCFSQuotaPeriod cpuManagerPolicy cpuManagerPolicyOptions cpuManagerReconcilePeriod crashLoopBackOff \
    enableContentionProfiling enableControllerAttachDetach enableDebugFlagsHandler enableDebuggingHandlers \
    enableProfilingHandler enableServer enableSystemLogHandler enableSystemLogQuery enforceNodeAllocatable eventBurst \
    eventRecordQPS evictionHard evictionMaxPodGracePeriod evictionMinimumReclaim evictionPressureTransitionPeriod \
    evictionSoft evictionSoftGracePeriod failCgroupV1 failSwapOn featureGates fileCheckFrequency hairpinMode \
    healthzBindAddress healthzPort httpCheckFrequency imageMaximumGCAge imageMinimumGCAge \
    imagePullCredentialsVerificationPolicy imageServiceEndpoint iptablesDropBit iptablesMasqueradeBit \
    kernelMemcgNotification kubeAPIBurst kubeAPIQPS kubeReserved kubeReservedCgroup kubeletCgroups \
    localStorageCapacityIsolation logging makeIPTablesUtilChains maxOpenFiles memoryManagerPolicy memorySwap \
    memoryThrottlingFactor mergeDefaultEvictionSettings nodeLeaseDurationSeconds nodeStatusMaxImages \
    nodeStatusReportFrequency nodeStatusUpdateFrequency oomScoreAdj podPidsLimit podsPerCore \
    preloadedImagesVerificationAllowlist protectKernelDefaults providerID qosReserved readOnlyPort registryBurst \
    registryPullQPS reservedMemory reservedSystemCPUs rotateCertificates runOnce runtimeRequestTimeout \
    seccompDefault serializeImagePulls serverTLSBootstrap showHiddenMetricsForVersion shutdownGracePeriod \
    shutdownGracePeriodByPodPriority shutdownGracePeriodCriticalPods singleProcessOOMKill staticPodURL \
    staticPodURLHeader streamingConnectionIdleTimeout syncFrequency systemCgroups systemReserved \
    systemReservedCgroup tlsCipherSuites tlsMinVersion topologyManagerPolicy topologyManagerPolicyOptions \
    topologyManagerScope tracing userNamespaces volumePluginDir volumeStatsAggPeriod";

impl KubeletFile {
    /// Reads YAML or JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(format!("it must have apiVersion {API_VERSION} and kind {KIND}"));
        }
        match file.others.keys().find(|name| !known(name)) {
            Some(unknown) => Err(format!("unknown field {unknown:?}")),
            None => Ok(file),
        }
    }

    /// Fields that were set to something and have no effect.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let says_something = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty() && text != "0s",
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(true) => true,
        };
        self.others.iter().filter(|(_, value)| says_something(value)).map(|(name, _)| name.as_str()).collect()
    }
}

fn known(name: &str) -> bool {
    UNUSED.split_whitespace().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn what_kubeadm_writes_is_understood() {
        let text = format!(
            "{HEAD}authentication:\n  anonymous: {{enabled: false}}\n  webhook: {{cacheTTL: 0s, enabled: true}}\n  \
             x509: {{clientCAFile: /etc/kubernetes/pki/ca.crt}}\nauthorization: {{mode: Webhook}}\ncgroupDriver: systemd\n\
             clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\ncontainerRuntimeEndpoint: \"\"\n\
             healthzPort: 10248\nlogging: {{}}\nresolvConf: /run/systemd/resolve/resolv.conf\n\
             runtimeRequestTimeout: 0s\nstaticPodPath: /etc/kubernetes/manifests\nsyncFrequency: 0s\n"
        );
        let file = KubeletFile::parse(&text).unwrap();
        assert_eq!(file.authentication.x509.client_ca_file, Some("/etc/kubernetes/pki/ca.crt".into()));
        assert_eq!(file.cgroup_driver, Some(kedge_kubelet::CgroupDriver::Systemd));
        assert_eq!(file.static_pod_path, Some("/etc/kubernetes/manifests".into()));
        assert_eq!(file.cluster_dns, Some(vec!["10.96.0.10".parse().unwrap()]));
        assert_eq!(file.unused(), ["authorization", "healthzPort"]);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for (text, why) in [
            (format!("{HEAD}staticPodPaht: /x\n"), "unknown field \"staticPodPaht\""),
            ("kind: KubeletConfiguration\n".to_owned(), "it must have apiVersion"),
            (format!("{HEAD}maxPods: many\n"), "maxPods"),
        ] {
            let error = KubeletFile::parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
