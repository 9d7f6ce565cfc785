//! The objects that are written, as bodies that cost next to nothing to make.

use bytes::Bytes;
use serde_json::json;

/// How many pods share a group, the label by which some are listed.
pub(crate) const GROUP_SIZE: u64 = 100;

/// The annotation that patches write.
pub(crate) const SENT: &str = "bench.kedge.dev/sent";

/// Stands where the number goes in the pod's template.
const NUMBER: &str = "@@";
const GROUP: &str = "@group@";

/// Name of a pod or ConfigMap.
pub(crate) fn name(number: u64) -> String {
    format!("bench-{number:06}")
}

/// The group of a pod out of so many, spread so that neighbours are in different groups.
pub(crate) fn group(number: u64, of: u64) -> u64 {
    number % of.div_ceil(GROUP_SIZE).max(1)
}

/// A ConfigMap with 1 KiB of data.
pub(crate) fn config_map(number: u64) -> Bytes {
    let name = name(number);
    let data = "x".repeat(1024);
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"{data}"}}}}"#)
        .into()
}

/// The lease of a numbered node.
pub(crate) fn lease(number: u64) -> Bytes {
    let name = name(number);
    format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}"}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:00.000000Z"}}}}"#
    )
    .into()
}

/// A merge patch that renews a lease for the so-manieth time.
pub(crate) fn renewal(number: u64) -> Bytes {
    let (seconds, micros) = (number / 1_000_000 % 60, number % 1_000_000);
    format!(r#"{{"spec":{{"renewTime":"2026-01-01T00:00:{seconds:02}.{micros:06}Z"}}}}"#).into()
}

/// A merge patch that writes an annotation.
pub(crate) fn patch(value: u64) -> Bytes {
    format!(r#"{{"metadata":{{"annotations":{{"{SENT}":"{value}"}}}}}}"#).into()
}

/// Makes pods as a Deployment of a web application has them. No scheduler takes them, so that the API server alone is
/// measured, and no controller minds them.
#[derive(Debug, Clone)]
pub(crate) struct Pods {
    template: String,
    count: u64,
}

impl Pods {
    pub(crate) fn new(count: u64) -> Self {
        Self { template: pod().to_string(), count }
    }

    pub(crate) fn body(&self, number: u64) -> Bytes {
        let group = group(number, self.count).to_string();
        self.template.replace(NUMBER, &format!("{number:06}")).replace(GROUP, &group).into()
    }
}

fn pod() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("bench-{NUMBER}"),
            "labels": {
                "app.kubernetes.io/name": "bench", "app.kubernetes.io/instance": "bench",
                "pod-template-hash": "7d4b8c9f5d", "group": format!("g{GROUP}"),
            },
            "annotations": {"checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        },
        "spec": {
            "schedulerName": "bench",
            "containers": [{
                "name": "web",
                "image": "registry.example.com/bench/web:1.27.3",
                "args": ["--listen=:8080", "--log-level=info", "--cache=/var/cache/web"],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DATABASE", "value": "postgres://db.bench.svc.cluster.local:5432/web"},
                ],
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web", "readOnly": true}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn bodies_are_json_with_their_names() {
        let config_map: Value = serde_json::from_slice(&config_map(7)).unwrap();
        assert_eq!(config_map["metadata"]["name"], "bench-000007");
        assert_eq!(config_map["data"]["key"].as_str().unwrap().len(), 1024);
        let pod: Value = serde_json::from_slice(&Pods::new(10_000).body(207)).unwrap();
        assert_eq!(pod["metadata"]["name"], name(207));
        assert_eq!(pod["metadata"]["labels"]["group"], "g7");
        let patch: Value = serde_json::from_slice(&patch(5)).unwrap();
        assert_eq!(patch["metadata"]["annotations"][SENT], "5");
    }

    #[test]
    fn every_group_is_full() {
        let members = (0..10_000).filter(|&number| group(number, 10_000) == 42).count() as u64;
        assert_eq!(members, GROUP_SIZE);
        assert_eq!(group(3, 50), 0, "fewer pods than a group's are one group");
    }
}
