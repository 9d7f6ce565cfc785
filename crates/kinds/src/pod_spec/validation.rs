//! Validation of a whole pod spec, and of the template around one.

use kedge_meta::FieldError;
use serde_json::Value;

use super::{containers, resources, scheduling, security, volumes};
use crate::formats;
use crate::metadata::{annotation_errors, label_errors};
use crate::path::Path;
use crate::value::{at, int, items, text, texts, truth};

/// Whether a spec is a pod's own or a template's, which is checked a little less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A pod's own.
    Pod,
    /// A template's.
    Template,
}

/// What is wrong with a pod spec.
pub(crate) fn validate_pod_spec(spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    volumes::volumes(spec, path, errors);
    containers::containers(spec, scope, path, errors);
    host_network(spec, scope, path, errors);
    let policy = text(spec, &["restartPolicy"]);
    path.child("restartPolicy").required_one_of(errors, policy, &["Always", "OnFailure", "Never"]);
    let policy = text(spec, &["dnsPolicy"]);
    const DNS: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    path.child("dnsPolicy").required_one_of(errors, policy, DNS);
    label_errors(spec, "nodeSelector", path, errors);
    security::pod_context(spec, &path.child("securityContext"), errors);
    security::host_users(spec, path, errors);
    scheduling::affinity(spec, &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::spreading(spec, &path.child("topologySpreadConstraints"), errors);
    names(spec, path, errors);
    if let Some(seconds) = int(spec, &["activeDeadlineSeconds"]) {
        let wrong = formats::in_range(seconds, 1, i64::from(i32::MAX));
        path.child("activeDeadlineSeconds").check_number(errors, seconds, wrong);
    }
    scheduling::tolerations(spec, path, errors);
    hostname_override(spec, &path.child("hostnameOverride"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(policy) = at(spec, &["preemptionPolicy"]).and_then(Value::as_str) {
        path.child("preemptionPolicy").required_one_of(errors, policy, &["PreemptLowerPriority", "Never"]);
    }
    resources::overhead(spec, path, errors);
    if let Some(os) = at(spec, &["os"]) {
        path.child("os").child("name").required_one_of(errors, text(os, &["name"]), &["linux", "windows"]);
    }
}

/// What is wrong with a pod template: labels, annotations, spec, and no ephemeral containers.
pub(crate) fn validate_template(template: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let metadata = path.child("metadata");
    label_errors(&template["metadata"], "labels", path, errors);
    annotation_errors(&template["metadata"], &metadata.child("annotations"), errors);
    let spec = path.child("spec");
    validate_pod_spec(&template["spec"], Scope::Template, &spec, errors);
    if !items(template, &["spec", "ephemeralContainers"]).is_empty() {
        spec.child("ephemeralContainers").forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

fn host_network(spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !truth(spec, &["hostNetwork"]) {
        return;
    }
    let list = path.child("containers");
    for (index, container) in items(spec, &["containers"]).iter().enumerate() {
        for (port_index, port) in items(container, &["ports"]).iter().enumerate() {
            let number = |field: &str| int(port, &[field]).unwrap_or(0);
            let (host, inner) = (number("hostPort"), number("containerPort"));
            if (scope == Scope::Pod || host != 0) && host != inner {
                let why = "must match `containerPort` when `hostNetwork` is true";
                list.index(index).child("ports").index(port_index).child("hostPort").invalid(errors, host, why);
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let config = at(spec, &["dnsConfig"]);
    let servers = config.map(|config| items(config, &["nameservers"])).unwrap_or_default();
    if text(spec, &["dnsPolicy"]) == "None" {
        if config.is_none() {
            return path.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return path.child("nameservers").required(errors, why);
        }
    }
    let Some(config) = config else { return };
    if servers.len() > 3 {
        path.child("nameservers").invalid(errors, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (index, server) in texts(config, &["nameservers"]).enumerate() {
        path.child("nameservers").index(index).check(errors, server, formats::ip(server));
    }
    let searches: Vec<&str> = texts(config, &["searches"]).collect();
    if searches.len() > 32 {
        path.child("searches").invalid(errors, searches.clone(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        path.child("searches").invalid(errors, searches.clone(), why);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        // Underscores are allowed here, as in SRV names.
        let search = search.strip_suffix('.').unwrap_or(search);
        let wrong = formats::subdomain(&search.replace('_', "a"));
        path.child("searches").index(index).check(errors, search, wrong);
    }
    for (index, option) in items(config, &["options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            path.child("options").index(index).required(errors, "must not be empty");
        }
    }
}

fn gates(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, gate) in items(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        let list = path.child("readinessGates");
        list.index(index).child("conditionType").check(errors, kind, formats::qualified_name(kind));
    }
    let gates = items(spec, &["schedulingGates"]);
    for (index, gate) in gates.iter().enumerate() {
        let name = text(gate, &["name"]);
        let list = path.child("schedulingGates");
        list.index(index).check(errors, name, formats::qualified_name(name));
        if gates[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
            list.index(index).duplicate(errors, name);
        }
    }
}

fn names(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    type Rule = fn(&str) -> Vec<String>;
    const RULES: &[(&str, Rule)] = &[
        ("serviceAccountName", formats::subdomain),
        ("nodeName", formats::subdomain),
        ("hostname", formats::label),
        ("subdomain", formats::label),
        ("priorityClassName", formats::subdomain),
        ("runtimeClassName", formats::subdomain),
    ];
    for (field, rule) in RULES {
        let name = text(spec, &[field]);
        if !name.is_empty() {
            path.child(field).check(errors, name, rule(name));
        }
    }
}

/// The name that a pod has inside, whatever else would name it.
fn hostname_override(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(name) = at(spec, &["hostnameOverride"]).and_then(Value::as_str) else { return };
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if truth(spec, &[field]) {
            path.forbidden(errors, &format!("may not be specified when {field} is true"));
        }
    }
    if name.len() > 64 {
        path.too_long(errors, 64);
    }
    path.check(errors, name, formats::subdomain(name));
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, alias) in items(spec, &["hostAliases"]).iter().enumerate() {
        let path = path.index(index);
        let ip = text(alias, &["ip"]);
        path.child("ip").check(errors, ip, formats::ip(ip));
        for (index, name) in texts(alias, &["hostnames"]).enumerate() {
            path.child("hostnames").index(index).check(errors, name, formats::subdomain(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use serde_json::json;

    fn check(spec: Value, expected: &[&str]) {
        let kind = builtin("", "v1", "Pod").unwrap();
        let mut pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        kind.default(&mut pod);
        let errors = kind.validate_create(&pod);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    fn with(extra: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "a", "image": "b:1"}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    }

    fn container(extra: Value) -> Value {
        let mut spec = with(json!({}));
        spec["containers"][0].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn containers_are_checked() {
        check(with(json!({})), &[]);
        check(json!({}), &["spec.containers: Required value"]);
        check(
            json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": " c"}]}),
            &[
                "spec.containers[1].image: Invalid value: \" c\": must not have leading or trailing whitespace",
                "spec.containers[1].name: Duplicate value: \"a\"",
            ],
        );
        check(
            container(json!({"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 0, "name": "web"}]})),
            &[
                "spec.containers[0].ports[1].name: Duplicate value: \"web\"",
                "spec.containers[0].ports[1].containerPort: Required value",
            ],
        );
        check(
            container(json!({"ports": [{"containerPort": 80, "hostPort": 80, "protocol": "X"}]})),
            &["spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \
               \"UDP\""],
        );
        check(
            container(json!({"env": [{"name": ""}, {"name": "A", "value": "b", "valueFrom": {"fieldRef": {
                "fieldPath": "spec.odd"}}}]})),
            &[
                "spec.containers[0].env[0].name: Required value",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.odd\": error converting \
                 fieldPath: field label not supported: spec.odd",
                "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ],
        );
        check(
            container(json!({"imagePullPolicy": "Odd"})),
            &["spec.containers[0].imagePullPolicy: Unsupported value: \"Odd\": supported values: \"Always\", \
               \"IfNotPresent\", \"Never\""],
        );
    }

    #[test]
    fn resources_are_checked() {
        check(
            container(json!({"resources": {"limits": {"cpu": "1", "memory": "-1"}, "requests": {"cpu": "2"}}})),
            &[
                "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            ],
        );
        check(
            container(json!({"resources": {"requests": {"odd": "1"}}})),
            &[
                "spec.containers[0].resources.requests[odd]: Invalid value: \"odd\": must be a standard resource type or \
                 fully qualified",
                "spec.containers[0].resources.requests[odd]: Invalid value: \"odd\": must be a standard resource for \
                 containers",
            ],
        );
    }

    #[test]
    fn volumes_and_mounts_are_checked() {
        check(
            container(json!({"volumeMounts": [{"name": "data", "mountPath": "/a"}, {"name": "x", "mountPath": "/a"}]})),
            &[
                "spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
                "spec.containers[0].volumeMounts[1].name: Not found: \"x\"",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            ],
        );
        check(
            with(json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}, {"name": "a"},
                {"name": "s", "secret": {"defaultMode": 1000}}]})),
            &[
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].name: Duplicate value: \"a\"",
                "spec.volumes[2].secret.secretName: Required value",
                "spec.volumes[2].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), \
                 both inclusive",
            ],
        );
    }

    #[test]
    fn probes_are_checked() {
        check(
            container(
                json!({"livenessProbe": {}, "readinessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}}),
            ),
            &[
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            ],
        );
        check(
            container(json!({"startupProbe": {"httpGet": {"port": "8"}, "successThreshold": 2, "periodSeconds": -1}})),
            &[
                "spec.containers[0].startupProbe.httpGet.port: Invalid value: \"8\": must contain at least one letter (a-z)",
                "spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        );
        check(
            with(json!({"initContainers": [{"name": "i", "image": "b:1", "lifecycle": {}}]})),
            &["spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without \
               restartPolicy=Always"],
        );
    }

    #[test]
    fn stop_signals_are_the_systems() {
        let spec = |os: Value, signal: &str| {
            let container = json!({"name": "a", "image": "b:1", "lifecycle": {"stopSignal": signal}});
            let mut spec = with(json!({}));
            spec["containers"][0]["lifecycle"] = container["lifecycle"].clone();
            if !os.is_null() {
                spec["os"] = json!({ "name": os });
            }
            spec
        };
        let path = "spec.containers[0].lifecycle.stopSignal";
        check(spec(json!("linux"), "SIGRTMIN+3"), &[]);
        check(
            spec(Value::Null, "SIGUSR1"),
            &[&format!("{path}: Forbidden: may not be set for containers with empty `spec.os.name`")],
        );
        check(
            spec(json!("windows"), "SIGUSR1"),
            &[&format!("{path}: Unsupported value: \"SIGUSR1\": supported values: \"SIGKILL\", \"SIGTERM\"")],
        );
    }

    #[test]
    fn own_users_go_without_the_nodes_namespaces() {
        check(with(json!({"hostUsers": false})), &[]);
        check(
            with(json!({"hostUsers": false, "hostPID": true, "hostIPC": true})),
            &[
                "spec.HostPID: Forbidden: when `hostUsers` is false",
                "spec.HostIPC: Forbidden: when `hostUsers` is false",
            ],
        );
    }

    #[test]
    fn names_inside_are_checked() {
        check(with(json!({"hostnameOverride": "db.example.org"})), &[]);
        check(
            with(json!({"hostnameOverride": "db", "setHostnameAsFQDN": true})),
            &["spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true"],
        );
        check(
            with(json!({"hostnameOverride": "db", "hostNetwork": true})),
            &["spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true"],
        );
        check(
            with(json!({"hostnameOverride": "x".repeat(65)})),
            &["spec.hostnameOverride: Too long: may not be more than 64 bytes"],
        );
    }

    #[test]
    fn the_rest_of_the_spec_is_checked() {
        check(
            with(json!({"restartPolicy": "Odd", "dnsPolicy": "None"})),
            &[
                "spec.restartPolicy: Unsupported value: \"Odd\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ],
        );
        check(
            with(json!({"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"}]})),
            &[
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
                 which means \"match all values and all keys\"",
                "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            ],
        );
        check(
            with(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": []}}, "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 0, "podAffinityTerm": {"topologyKey": "host"}}]}}})),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required \
                 value: must have at least one node selector term",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: \
                 0: must be in the range 1-100",
            ],
        );
        check(
            with(json!({"securityContext": {"runAsUser": -1}, "activeDeadlineSeconds": 0, "nodeName": "N"})),
            &[
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*\
                 [a-z0-9])?)*')",
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ],
        );
        check(
            with(json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "X"}]})),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \
                 \"DoNotSchedule\", \"ScheduleAnyway\"",
            ],
        );
        check(
            with(json!({"ephemeralContainers": [{"name": "d", "image": "e:1"}]})),
            &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        );
    }
}
