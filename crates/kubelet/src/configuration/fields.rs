//! Every field of upstream's document, and what becomes of it here.
//!
//! Pure. Invariant: a field of v1.36 is in exactly one of the lists.

use serde_json::{Value, json};

use super::{Starter, duration};

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Support {
    /// It is read, or unknown: the document says.
    Used,
    /// It asks for what happens anyway.
    AsItIs,
    /// It has no effect, for this reason.
    NotUsed(&'static str),
    /// It asks for something that is not there; what is.
    Refused(String),
}

/// They tune how the work is done and change nothing that a workload sees.
const TUNING: [&str; 35] = [
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "contentType",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "eventBurst",
    "eventRecordQPS",
    "fileCheckFrequency",
    "flagzPort",
    "httpCheckFrequency",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podHousekeepingPeriod",
    "registryBurst",
    "registryPullQPS",
    "runtimeRequestTimeout",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "volumeStatsAggPeriod",
];
/// They are for who starts the kubelet: `kedge up` decides them itself, the kubelet as a process reads them.
const OF_THE_STARTER: [&str; 10] = [
    "authentication",
    "cgroupDriver",
    "containerRuntimeEndpoint",
    "podCIDR",
    "podLogsDir",
    "port",
    "rotateCertificates",
    "serverTLSBootstrap",
    "tlsCertFile",
    "tlsPrivateKeyFile",
];
/// They are fixed, with the values that are how it is here.
fn unchangeable() -> [(&'static str, Value); 10] {
    let times = json!({ "cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s" });
    [
        ("address", json!("0.0.0.0")),
        ("authorization", json!({ "mode": "Webhook", "webhook": times })),
        ("enableDebuggingHandlers", json!(true)),
        ("enableServer", json!(true)),
        ("hairpinMode", json!("promiscuous-bridge")),
        ("imageServiceEndpoint", Value::Null),
        ("readOnlyPort", Value::Null),
        ("tlsCipherSuites", Value::Null),
        ("tlsCurvePreferences", Value::Null),
        ("tlsMinVersion", Value::Null),
    ]
}

/// What becomes of a field with this value.
pub(super) fn support(field: &str, value: &Value, starter: Starter) -> Support {
    let is_listed = TUNING.contains(&field) || OF_THE_STARTER.contains(&field);
    if is_listed && (is_empty(value) || starter == Starter::Kubelet && OF_THE_STARTER.contains(&field)) {
        return Support::AsItIs;
    }
    if TUNING.contains(&field) {
        return Support::NotUsed("it tunes upstream's way of working");
    }
    if OF_THE_STARTER.contains(&field) {
        return Support::NotUsed("`kedge up` decides it when it starts the kubelet");
    }
    if let Some((_, usual)) = unchangeable().into_iter().find(|(name, _)| *name == field) {
        // Go knows an unset switch from one that is off.
        let known = agrees(value, &usual) || is_empty(value) && !value.is_boolean();
        return if known { Support::AsItIs } else { Support::NotUsed("it cannot be chosen here") };
    }
    let Some((_, supported)) = fixed().into_iter().find(|(name, _)| *name == field) else { return Support::Used };
    if is_empty(value) || supported.contains(value) {
        return Support::AsItIs;
    }
    let texts: Vec<String> = supported.iter().map(Value::to_string).collect();
    Support::Refused(if texts.is_empty() { "an empty value".to_owned() } else { texts.join(" or ") })
}

// DIVERGES: upstream honours them all.
/// Fields that change what workloads get, with the values that are how it is here. A value that is empty in Go's sense is
/// always one of them.
fn fixed() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("cgroupRoot", vec![json!("/")]),
        ("cgroupsPerQOS", vec![json!(true)]),
        ("cpuCFSQuota", vec![json!(true)]),
        ("cpuCFSQuotaPeriod", vec![json!("100ms")]),
        ("cpuManagerPolicy", vec![json!("none")]),
        ("cpuManagerPolicyOptions", vec![]),
        ("crashLoopBackOff", vec![json!({ "maxContainerRestartPeriod": "5m0s" })]),
        ("enableControllerAttachDetach", vec![json!(true)]),
        ("failCgroupV1", vec![]),
        ("failSwapOn", vec![json!(true), json!(false)]),
        ("featureGates", vec![]),
        ("imagePullCredentialsVerificationPolicy", vec![json!("NeverVerifyPreloadedImages"), json!("NeverVerify")]),
        ("kubeReservedCgroup", vec![]),
        ("kubeletCgroups", vec![]),
        ("memoryManagerPolicy", vec![json!("None")]),
        ("memoryReservationPolicy", vec![json!("None")]),
        ("memorySwap", vec![json!({ "swapBehavior": "NoSwap" }), json!({ "swapBehavior": "" })]),
        ("memoryThrottlingFactor", vec![json!(0.9)]),
        ("podsPerCore", vec![]),
        ("preloadedImagesVerificationAllowlist", vec![]),
        ("protectKernelDefaults", vec![]),
        ("providerID", vec![]),
        ("qosReserved", vec![]),
        ("reservedMemory", vec![]),
        ("reservedSystemCPUs", vec![]),
        ("runOnce", vec![]),
        ("seccompDefault", vec![]),
        ("showHiddenMetricsForVersion", vec![]),
        ("shutdownGracePeriod", vec![]),
        ("shutdownGracePeriodByPodPriority", vec![]),
        ("shutdownGracePeriodCriticalPods", vec![]),
        ("singleProcessOOMKill", vec![]),
        ("staticPodURL", vec![]),
        ("staticPodURLHeader", vec![]),
        ("systemCgroups", vec![]),
        ("systemReservedCgroup", vec![]),
        ("topologyManagerPolicy", vec![json!("none")]),
        ("useServiceAccountTokenForImagePull", vec![]),
        ("userNamespaces", vec![]),
        ("volumePluginDir", vec![json!("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")]),
    ]
}

/// Whether a value asks for nothing but the usual one: each of its fields does, or is empty.
fn agrees(value: &Value, usual: &Value) -> bool {
    match (value, usual) {
        (Value::Object(fields), Value::Object(usual)) => fields
            .iter()
            .all(|(name, field)| is_empty(field) || usual.get(name).is_some_and(|usual| agrees(field, usual))),
        _ => value == usual,
    }
}

/// Go's zero values, which mean the default.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || duration::parse(text) == Ok(std::time::Duration::ZERO),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_field_is_in_two_lists() {
        let (fixed, unchangeable) = (fixed(), unchangeable());
        let all: Vec<&str> = TUNING
            .iter()
            .chain(&OF_THE_STARTER)
            .copied()
            .chain(unchangeable.iter().map(|(name, _)| *name))
            .chain(fixed.iter().map(|(name, _)| *name))
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn what_happens_anyway_is_no_news_and_what_is_not_there_is_refused() {
        for (field, value, expected) in [
            ("cpuManagerPolicy", json!("none"), Support::AsItIs),
            ("cpuManagerPolicy", json!(""), Support::AsItIs),
            ("cpuManagerPolicy", json!("static"), Support::Refused("\"none\"".to_owned())),
            ("shutdownGracePeriod", json!("0s"), Support::AsItIs),
            ("shutdownGracePeriod", json!("30s"), Support::Refused("an empty value".to_owned())),
            ("memorySwap", json!({}), Support::AsItIs),
            (
                "authorization",
                json!({ "mode": "Webhook", "webhook": { "cacheAuthorizedTTL": "5m0s" } }),
                Support::AsItIs,
            ),
            ("address", json!("0.0.0.0"), Support::AsItIs),
            ("maxPods", json!(5), Support::Used),
            ("noSuchField", json!(5), Support::Used),
        ] {
            assert_eq!(support(field, &value, Starter::Up), expected, "{field}");
        }
        for value in [json!({ "mode": "AlwaysAllow" }), json!({ "webhook": { "cacheAuthorizedTTL": "1m0s" } })] {
            assert!(matches!(support("authorization", &value, Starter::Kubelet), Support::NotUsed(_)), "{value}");
        }
        assert!(matches!(support("enableServer", &json!(false), Starter::Up), Support::NotUsed(_)));
        assert!(matches!(support("port", &json!(1), Starter::Up), Support::NotUsed(_)));
        assert_eq!(support("port", &json!(1), Starter::Kubelet), Support::AsItIs);
        assert_eq!(support("syncFrequency", &json!("0s"), Starter::Up), Support::AsItIs);
    }
}
