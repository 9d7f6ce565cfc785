//! Whole files: what they change, what they are told.

use std::time::Duration;

use super::*;
use crate::config::Reserved;
use crate::eviction::{Amount, Signal};

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn applied(body: &str) -> (Config, Vec<String>) {
    let configuration = KubeletConfiguration::read(&format!("{HEAD}{body}"), Starter::Up).unwrap();
    let mut config = Config::default();
    configuration.apply(&mut config).unwrap();
    (config, configuration.warnings().to_vec())
}

#[test]
fn an_empty_file_changes_nothing() {
    assert_eq!(applied(""), (Config::default(), vec![]));
}

#[test]
fn fields_reach_the_configuration() {
    let (config, warnings) = applied(
        "
maxPods: 20
podPidsLimit: 100
allowedUnsafeSysctls: ['kernel.msg*', net.core.somaxconn]
containerLogMaxSize: 1Mi
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
kubeReserved: {cpu: 100m, memory: 64Mi, ephemeral-storage: 1Gi, pid: '1000'}
systemReserved: {memory: 32Mi}
evictionHard: {memory.available: 5%}
evictionSoft: {nodefs.available: 20%}
evictionSoftGracePeriod: {nodefs.available: 2m}
evictionMaxPodGracePeriod: 60
evictionPressureTransitionPeriod: 30s
imageGCHighThresholdPercent: 90
imageMaximumGCAge: 24h
serializeImagePulls: true
registerWithTaints: [{key: a, value: b, effect: NoSchedule}]
enforceNodeAllocatable: [none]
cpuManagerPolicy: none
kubeAPIQPS: 10
",
    );
    assert_eq!((config.max_pods, config.pod_pids_limit), (20, 100));
    assert_eq!(config.allowed_unsafe_sysctls, ["kernel.msg*", "net.core.somaxconn"]);
    assert_eq!((config.container_log_max_bytes, config.container_log_max_files), (1 << 20, 3));
    assert_eq!(config.container_log_monitor_interval, Duration::from_secs(3));
    let kube = Reserved { cpu_millis: 100, memory: 64 << 20, ephemeral_storage: 1 << 30, pids: 1000 };
    assert_eq!(config.kube_reserved, kube);
    assert_eq!(config.reserved().memory, 96 << 20);
    let thresholds: Vec<_> = config.eviction.thresholds.iter().map(|t| (t.signal, t.value, t.grace_period)).collect();
    assert_eq!(
        thresholds,
        [
            (Signal::MemoryAvailable, Amount::Percent(5.0), Duration::ZERO),
            (Signal::NodefsAvailable, Amount::Percent(20.0), Duration::from_secs(120)),
        ]
    );
    assert_eq!(config.eviction.max_pod_grace_period_seconds, 60);
    assert_eq!(config.eviction.pressure_transition_period, Duration::from_secs(30));
    assert_eq!(config.image_gc.high_threshold_percent, 90);
    assert_eq!(config.image_gc.maximum_age, Duration::from_secs(86_400));
    assert_eq!(config.max_parallel_image_pulls, 1);
    assert_eq!(config.taints[0].key, "a");
    assert!(!config.enforce_node_allocatable);
    assert_eq!(warnings, ["kubeAPIQPS is not used: it tunes upstream's way of working"]);
}

/// What kubeadm writes.
const KUBEADM: &str = "
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ''
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";

#[test]
fn a_file_of_kubeadm_is_taken() {
    let (config, warnings) = applied(KUBEADM);
    assert_eq!(config.eviction, Config::default().eviction);
    assert_eq!(config.resolv_conf.as_deref(), Some("/run/systemd/resolve/resolv.conf".as_ref()));
    assert!(warnings.iter().any(|warning| warning.starts_with("cgroupDriver is not used")), "{warnings:?}");
    let alone = KubeletConfiguration::read(&format!("{HEAD}{KUBEADM}"), Starter::Kubelet).unwrap();
    let expected = LaunchSettings {
        anonymous_auth: Some(false),
        cgroup_driver: Some(crate::config::CgroupDriver::Systemd),
        client_ca_file: Some("/etc/kubernetes/pki/ca.crt".into()),
        rotate_certificates: true,
        ..LaunchSettings::default()
    };
    assert_eq!(alone.launch(), &expected);
    assert!(alone.warnings().is_empty(), "{:?}", alone.warnings());
}

#[test]
fn what_cannot_be_honoured_is_said() {
    let check = |body: &str, expected: &str| {
        let error = KubeletConfiguration::read(&format!("{HEAD}{body}"), Starter::Up).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {source}").contains(expected), "{error}: {source}");
    };
    check("maxPodz: 5", "unknown field `maxPodz`");
    check("maxPods: many", "invalid type");
    check("cpuManagerPolicy: static", "cpuManagerPolicy: \"static\" is not supported; only \"none\" is");
    check("shutdownGracePeriod: 30s", "shutdownGracePeriod: \"30s\" is not supported");
    check("evictionHard: {disk: 1Gi}", "unsupported eviction signal disk");
    check("kubeReserved: {gpu: '1'}", "cannot reserve \"gpu\" resource");
    check("enforceNodeAllocatable: [pods, system-reserved]", "\"system-reserved\" is not supported");
    check("allowedUnsafeSysctls: [vm.swappiness]", "not known to be namespaced");
    check("imageMinimumGCAge: soon", "\"soon\" is no duration");
    check("imageGCHighThresholdPercent: 70", "lowThresholdPercent <= highThresholdPercent");
    check("{", "not YAML");
    let other = KubeletConfiguration::read("apiVersion: v1\nkind: Pod\n", Starter::Up).unwrap_err().to_string();
    assert!(other.starts_with("the file is a Pod of v1"), "{other}");
}
