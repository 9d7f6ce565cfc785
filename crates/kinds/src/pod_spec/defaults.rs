//! Upstream's `SetDefaults` for `PodSpec` and everything in it.
//!
//! Not admission (priority, default tolerations, service account, limit ranges). The invariant: applying them twice
//! changes nothing more.

use serde_json::{Map, Value, json};

use crate::value::{at_mut, child, entries, fill, fill_text, int, items_mut, map, remove, set, text, truth};

/// Mode of files in secret, configMap, downwardAPI and projected volumes: 0644.
const FILE_MODE: i64 = 420;

/// Defaults of a pod: those of its spec, and those that templates do not get.
pub(crate) fn default_pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else { return };
    for list in ["containers", "initContainers"] {
        items_mut(spec, &[list])
            .iter_mut()
            .filter_map(|one| at_mut(one, &["resources"]))
            .for_each(requests_from_limits);
    }
    if let Some(resources) = at_mut(spec, &["resources"]) {
        requests_from_limits(resources);
    }
    fill(spec, "enableServiceLinks", true);
    if truth(spec, &["hostNetwork"]) {
        for list in ["containers", "initContainers"] {
            items_mut(spec, &[list]).iter_mut().flat_map(|one| items_mut(one, &["ports"])).for_each(host_port);
        }
    }
    default_pod_spec(spec);
}

/// Defaults of a pod spec, also in templates.
pub(crate) fn default_pod_spec(spec: &mut Value) {
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", Value::Object(Map::new()));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_text(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    items_mut(spec, &["volumes"]).iter_mut().for_each(volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, &[list]).iter_mut().for_each(container);
    }
}

/// Keeps the deprecated `serviceAccount` equal to `serviceAccountName`.
pub(crate) fn mirror_service_account(spec: &mut Value) {
    let name = match text(spec, &["serviceAccountName"]) {
        "" => text(spec, &["serviceAccount"]).to_owned(),
        name => name.to_owned(),
    };
    for field in ["serviceAccount", "serviceAccountName"] {
        match name.is_empty() {
            true => drop(remove(spec, field)),
            false => set(spec, field, name.as_str()),
        }
    }
}

/// The pull policy of an image: `Always` for the tag `latest` (also where neither tag nor digest stands).
pub(crate) fn pull_policy(image: &str) -> &'static str {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let last = named.rsplit('/').next().unwrap_or_default();
    let tag = match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, Some(_)) => "",
        (None, None) if image.is_empty() => "",
        (None, None) => "latest",
    };
    if tag == "latest" { "Always" } else { "IfNotPresent" }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = map(resources, &["limits"]).filter(|limits| !limits.is_empty()) else { return };
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(name, _)| resources["requests"].get(name.as_str()).is_none())
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if let (false, Some(Value::Object(requests))) = (missing.is_empty(), child(resources, "requests")) {
        requests.extend(missing);
    }
}

fn host_port(port: &mut Value) {
    if int(port, &["hostPort"]).unwrap_or(0) == 0
        && let Some(number) = int(port, &["containerPort"])
    {
        set(port, "hostPort", number);
    }
}

fn container(container: &mut Value) {
    if text(container, &["imagePullPolicy"]).is_empty() {
        let policy = pull_policy(text(container, &["image"]));
        set(container, "imagePullPolicy", policy);
    }
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    // A struct without omitempty in effect: upstream always writes it, as an empty map.
    fill(container, "resources", Value::Object(Map::new()));
    for port in items_mut(container, &["ports"]) {
        fill_text(port, "protocol", "TCP");
    }
    for variable in items_mut(container, &["env"]) {
        if let Some(source) = at_mut(variable, &["valueFrom"]) {
            value_source(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = at_mut(container, &[name]) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(http) = at_mut(container, &["lifecycle", hook, "httpGet"]) {
            http_get(http);
        }
    }
}

/// `fieldRef.apiVersion` and `resourceFieldRef.divisor` of an environment variable or a downward API file.
fn value_source(source: &mut Value) {
    if let Some(reference) = at_mut(source, &["fieldRef"]) {
        fill_text(reference, "apiVersion", "v1");
    }
    if let Some(reference) = at_mut(source, &["resourceFieldRef"]) {
        fill(reference, "divisor", "0");
    }
    if let Some(reference) = at_mut(source, &["fileKeyRef"]) {
        fill(reference, "optional", false);
    }
}

fn probe(probe: &mut Value) {
    for (field, number) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if int(probe, &[field]).unwrap_or(0) == 0 {
            set(probe, field, number);
        }
    }
    if let Some(http) = at_mut(probe, &["httpGet"]) {
        http_get(http);
    }
    if let Some(grpc) = at_mut(probe, &["grpc"]) {
        fill(grpc, "service", "");
    }
}

fn http_get(action: &mut Value) {
    fill_text(action, "path", "/");
    fill_text(action, "scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    if entries(volume, &[]).all(|(field, _)| field == "name") {
        set(volume, "emptyDir", json!({}));
        return;
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = at_mut(volume, &[source]) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    items_mut(volume, &["downwardAPI", "items"]).iter_mut().for_each(value_source);
    items_mut(volume, &["projected", "sources"]).iter_mut().for_each(projected_source);
    if let Some(host_path) = at_mut(volume, &["hostPath"]) {
        fill(host_path, "type", "");
    }
    if let Some(claim) = at_mut(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
        fill(claim, "volumeMode", "Filesystem");
    }
    if let Some(image) = at_mut(volume, &["image"]) {
        let policy = pull_policy(text(image, &["reference"]));
        fill_text(image, "pullPolicy", policy);
    }
    network_volume(volume);
}

fn projected_source(source: &mut Value) {
    items_mut(source, &["downwardAPI", "items"]).iter_mut().for_each(value_source);
    if let Some(token) = at_mut(source, &["serviceAccountToken"]) {
        fill(token, "expirationSeconds", 3600);
    }
    if let Some(certificate) = at_mut(source, &["podCertificate"]) {
        fill(certificate, "maxExpirationSeconds", 86_400);
    }
}

fn network_volume(volume: &mut Value) {
    const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
    ];
    for (source, fields) in DEFAULTS {
        if let Some(source) = at_mut(volume, &[source]) {
            fields.iter().for_each(|(field, value)| fill_text(source, field, value));
        }
    }
    if let Some(disk) = at_mut(volume, &["azureDisk"]) {
        fill(disk, "readOnly", false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies_follow_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_pod_gets_upstreams_defaults() {
        let mut pod = json!({"spec": {
            "hostNetwork": true,
            "serviceAccount": "robot",
            "volumes": [
                {"name": "scratch"},
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "host", "hostPath": {"path": "/tmp"}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{
                "name": "web",
                "image": "nginx:1",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}}]}});
        default_pod(&mut pod);
        let expected = json!({"spec": {
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "hostNetwork": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "robot",
            "serviceAccountName": "robot",
            "terminationGracePeriodSeconds": 30,
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "settings", "defaultMode": 420}},
                {"name": "host", "hostPath": {"path": "/tmp", "type": ""}},
                {"name": "token", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [
                        {"path": "ns", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{
                "name": "web",
                "image": "nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                    "failureThreshold": 3, "periodSeconds": 5, "successThreshold": 1, "timeoutSeconds": 1},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"}]}});
        assert_eq!(pod, expected);
        default_pod(&mut pod);
        assert_eq!(pod, expected, "twice changes nothing more");
    }
}
