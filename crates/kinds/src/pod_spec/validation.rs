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
