//! Flags of upstream's components that have no effect here: taken out of the command line before it is parsed, and named.
//!
//! Invariant: a flag that is in none of the lists reaches the parser, which refuses it.

use std::ffi::OsString;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A value, behind `=` or as the next word.
    Value,
    /// Nothing, or `=true` or `=false`.
    Switch,
}

const COMMON: &[(&str, Takes)] = &[
    ("contention-profiling", Takes::Switch),
    ("feature-gates", Takes::Value),
    ("http2-max-streams-per-connection", Takes::Value),
    ("log-flush-frequency", Takes::Value),
    ("log-json-info-buffer-size", Takes::Value),
    ("log-json-split-stream", Takes::Switch),
    ("log-text-info-buffer-size", Takes::Value),
    ("log-text-split-stream", Takes::Switch),
    ("logging-format", Takes::Value),
    ("min-compatibility-version", Takes::Value),
    ("emulated-version", Takes::Value),
    ("permit-address-sharing", Takes::Switch),
    ("permit-port-sharing", Takes::Switch),
    ("profiling", Takes::Switch),
    ("show-hidden-metrics-for-version", Takes::Value),
    ("tls-cipher-suites", Takes::Value),
    ("tls-min-version", Takes::Value),
    ("tls-sni-cert-key", Takes::Value),
    ("vmodule", Takes::Value),
];

/// Those of components that ask the API server who asks them: they retry by themselves, and believe no front proxies.
const DELEGATED: &[(&str, Takes)] = &[
    ("authentication-tolerate-lookup-failure", Takes::Switch),
    ("kube-api-burst", Takes::Value),
    ("kube-api-content-type", Takes::Value),
    ("kube-api-qps", Takes::Value),
    ("leader-elect-resource-lock", Takes::Value),
    ("requestheader-allowed-names", Takes::Value),
    ("requestheader-client-ca-file", Takes::Value),
    ("requestheader-extra-headers-prefix", Takes::Value),
    ("requestheader-group-headers", Takes::Value),
    ("requestheader-uid-headers", Takes::Value),
    ("requestheader-username-headers", Takes::Value),
];

const APISERVER: &[(&str, Takes)] = &[
    ("default-not-ready-toleration-seconds", Takes::Value),
    ("default-unreachable-toleration-seconds", Takes::Value),
    ("default-watch-cache-size", Takes::Value),
    ("delete-collection-workers", Takes::Value),
    ("enable-aggregator-routing", Takes::Switch),
    ("enable-garbage-collector", Takes::Switch),
    ("enable-priority-and-fairness", Takes::Switch),
    ("endpoint-reconciler-type", Takes::Value),
    ("etcd-compaction-interval", Takes::Value),
    ("etcd-count-metric-poll-period", Takes::Value),
    ("etcd-db-metric-poll-interval", Takes::Value),
    ("etcd-healthcheck-timeout", Takes::Value),
    ("etcd-readycheck-timeout", Takes::Value),
    ("goaway-chance", Takes::Value),
    ("livez-grace-period", Takes::Value),
    ("requestheader-uid-headers", Takes::Value),
    ("runtime-config", Takes::Value),
    ("service-account-lookup", Takes::Switch),
    ("shutdown-delay-duration", Takes::Value),
    ("shutdown-send-retry-after", Takes::Switch),
    ("storage-backend", Takes::Value),
    ("storage-media-type", Takes::Value),
    ("watch-cache", Takes::Switch),
    ("watch-cache-sizes", Takes::Value),
];

const CONTROLLER_MANAGER: &[(&str, Takes)] = &[
    ("allow-untagged-cloud", Takes::Switch),
    ("attach-detach-reconcile-sync-period", Takes::Value),
    ("cidr-allocator-type", Takes::Value),
    ("cloud-config", Takes::Value),
    ("cloud-provider", Takes::Value),
    ("cluster-name", Takes::Value),
    ("configure-cloud-routes", Takes::Switch),
    ("controller-start-interval", Takes::Value),
    ("enable-dynamic-provisioning", Takes::Switch),
    ("enable-garbage-collector", Takes::Switch),
    ("enable-leader-migration", Takes::Switch),
    ("flex-volume-plugin-dir", Takes::Value),
    ("kube-api-content-type", Takes::Value),
    ("min-resync-period", Takes::Value),
    ("namespace-sync-period", Takes::Value),
    ("resource-quota-sync-period", Takes::Value),
    ("route-reconciliation-period", Takes::Value),
    ("service-cluster-ip-range", Takes::Value),
];

const PROXY: &[(&str, Takes)] = &[
    ("bind-address", Takes::Value),
    ("cleanup", Takes::Switch),
    ("config-sync-period", Takes::Value),
    ("conntrack-max-per-core", Takes::Value),
    ("conntrack-min", Takes::Value),
    ("conntrack-tcp-timeout-close-wait", Takes::Value),
    ("conntrack-tcp-timeout-established", Takes::Value),
    ("detect-local-mode", Takes::Value),
    ("iptables-min-sync-period", Takes::Value),
    ("iptables-sync-period", Takes::Value),
    ("metrics-bind-address", Takes::Value),
    ("oom-score-adj", Takes::Value),
    ("proxy-mode", Takes::Value),
];

/// The command line of a component without the flags that have no effect; and these, as they were written.
pub(crate) fn split(component: &str, arguments: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    let lists: &[&[(&str, Takes)]] = match component {
        "kube-apiserver" => &[COMMON, APISERVER],
        "kube-controller-manager" => &[COMMON, DELEGATED, CONTROLLER_MANAGER],
        "kube-scheduler" => &[COMMON, DELEGATED],
        "kube-proxy" => &[COMMON, PROXY],
        _ => &[],
    };
    let find = |name: &str| lists.iter().flat_map(|list| list.iter()).find(|(known, _)| *known == name);
    let (mut kept, mut ignored) = (Vec::new(), Vec::new());
    let mut rest = arguments.into_iter();
    while let Some(word) = rest.next() {
        let flag = word.to_str().and_then(|word| word.strip_prefix("--"));
        let (name, has_value) = match flag.and_then(|flag| flag.split_once('=')) {
            Some((name, _)) => (name, true),
            None => (flag.unwrap_or_default(), false),
        };
        match find(name) {
            None => kept.push(word),
            Some((name, takes)) => {
                ignored.push(format!("--{name}"));
                if *takes == Takes::Value && !has_value {
                    rest.next();
                }
            }
        }
    }
    (kept, ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_without_effect_are_taken_out_with_their_values() {
        let check = |component: &str, line: &str, kept: &str, ignored: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let (left, named) = split(component, words);
            let left: Vec<_> = left.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!((left.join(" ").as_str(), named.join(" ").as_str()), (kept, ignored), "{line}");
        };
        check(
            "kube-scheduler",
            "kube-scheduler --profiling --leader-elect",
            "kube-scheduler --leader-elect",
            "--profiling",
        );
        check("kube-scheduler", "kube-scheduler --kube-api-qps 5 --v=2", "kube-scheduler --v=2", "--kube-api-qps");
        check("kube-scheduler", "kube-scheduler --nonsense=1", "kube-scheduler --nonsense=1", "");
        check(
            "kube-apiserver",
            "x --storage-backend=etcd3 --client-ca-file=/a",
            "x --client-ca-file=/a",
            "--storage-backend",
        );
        check(
            "kube-controller-manager",
            "x --requestheader-client-ca-file /a --controllers=*",
            "x --controllers=*",
            "--requestheader-client-ca-file",
        );
    }
}
