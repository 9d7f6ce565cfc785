//! The addresses and ports of a service across updates: what is kept from the old one, what falls with its type, how
//! `clusterIP` and `clusterIPs` stay in step, and which changes are refused.

use kedge_meta::FieldError;
use serde_json::Value;

use super::service::{clear_node_ports, node_port_of, spec_mut};
use crate::formats;
use crate::path::Path;
use crate::value::{at, int, is_set, items, items_mut, keep, remove, set, text, texts};

const SPEC: Path<'static> = Path::root("spec");

/// Whether `clusterIPs` is exactly `None`.
pub(super) fn is_headless(spec: &Value) -> bool {
    let mut ips = texts(spec, &["clusterIPs"]);
    ips.next() == Some("None") && ips.next().is_none()
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, &["type"]), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &Value) -> bool {
    match text(spec, &["type"]) {
        "NodePort" => true,
        "LoadBalancer" => at(spec, &["allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, &["type"]) == "LoadBalancer" && text(spec, &["externalTrafficPolicy"]) == "Local"
}

/// Fills in what the old service was given and the new one leaves out, so that a client may send its own manifest again.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    let old = &old["spec"];
    let Some(new) = spec_mut(new) else { return };
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(new, &["clusterIP"]).is_empty() {
            keep(new, old, "clusterIP");
        }
        if !is_set(new, &["clusterIPs"]) && text(new, &["clusterIP"]) == text(old, &["clusterIP"]) {
            keep(new, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !is_set(new, &[field]) && is_set(old, &[field]) {
                keep(new, old, field);
            }
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let taken: Vec<i64> = items(new, &["ports"]).iter().filter_map(|port| int(port, &["nodePort"])).collect();
        for port in items_mut(new, &["ports"]) {
            let kept = node_port_of(old, port).filter(|kept| !taken.contains(kept));
            if let (0, Some(kept)) = (int(port, &["nodePort"]).unwrap_or(0), kept) {
                set(port, "nodePort", kept);
            }
        }
    }
    if needs_health_check_port(old) && needs_health_check_port(new) && !is_nonzero(new, "healthCheckNodePort") {
        keep(new, old, "healthCheckNodePort");
    }
}

fn is_nonzero(spec: &Value, field: &str) -> bool {
    int(spec, &[field]).unwrap_or(0) != 0
}

/// Drops fields that the new type can't have and that the client merely sent back.
pub(super) fn drop_what_the_type_lost(new: &mut Value, old: &Value) {
    if text(old, &["spec", "type"]) == "LoadBalancer" && text(new, &["spec", "type"]) != "LoadBalancer" {
        set(new, "status", serde_json::json!({"loadBalancer": {}}));
    }
    let old = &old["spec"];
    let Some(new) = spec_mut(new) else { return };
    let mut lost: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        lost.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) {
        lost.push("healthCheckNodePort");
    }
    if text(new, &["type"]) != "LoadBalancer" {
        lost.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if !matches!(text(new, &["type"]), "LoadBalancer" | "NodePort") && !is_set(new, &["externalIPs"]) {
        lost.push("externalTrafficPolicy");
    }
    for field in lost {
        if at(new, &[field]) == at(old, &[field]) {
            remove(new, field);
        }
    }
    let node_ports = |spec: &Value| -> Vec<Option<i64>> {
        items(spec, &["ports"]).iter().map(|port| int(port, &["nodePort"])).collect()
    };
    if needs_node_port(old) && !needs_node_port(new) && node_ports(old) == node_ports(new) {
        clear_node_ports(new);
    }
}

/// Brings `clusterIP` and `clusterIPs` in step, following the one that the client changed.
pub(super) fn normalize(new: &mut Value, old: Option<&Value>) {
    let Some(spec) = spec_mut(new) else { return };
    let first = texts(spec, &["clusterIPs"]).next().unwrap_or_default().to_owned();
    let single = text(spec, &["clusterIP"]).to_owned();
    let Some(old) = old.map(|old| &old["spec"]) else {
        match (single.is_empty(), first.is_empty()) {
            (false, true) => set(spec, "clusterIPs", vec![single]),
            (true, false) => set(spec, "clusterIP", first),
            _ => {}
        }
        return;
    };
    let same_single = single == text(old, &["clusterIP"]);
    let same_list = at(spec, &["clusterIPs"]) == at(old, &["clusterIPs"]);
    if !same_single && (same_list || (first.is_empty() && !single.is_empty())) {
        match single.is_empty() {
            true => drop(remove(spec, "clusterIPs")),
            false => set(spec, "clusterIPs", vec![single]),
        }
    } else if same_single && !same_list {
        match first.is_empty() {
            true => drop(remove(spec, "clusterIP")),
            false => set(spec, "clusterIP", first),
        }
    }
}

/// What is wrong with the addresses of a service.
pub(super) fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    if text(spec, &["type"]) == "ExternalName" {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let ips: Vec<&str> = texts(spec, &["clusterIPs"]).collect();
    let list = || Value::from(ips.clone());
    match (text(spec, &["clusterIP"]), ips.first()) {
        ("", Some(_)) => path.invalid(errors, list(), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => path.required(errors, ""),
        (single, Some(first)) if single != *first => {
            path.invalid(errors, list(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    families(spec, errors);
    if ips.first() == Some(&"None") && ips.len() > 1 {
        path.invalid(errors, list(), "'None' must be the first and only value");
    }
    for (index, ip) in ips.iter().enumerate().filter(|(index, ip)| *index > 0 || **ip != "None") {
        path.index(index).check(errors, ip, formats::ip(ip));
    }
    if ips.len() > 2 {
        path.invalid(errors, list(), "may only hold up to 2 values");
    }
    let is_v6 = |ip: &str| ip.contains(':');
    if ips.len() == 2 && ips[0] != "None" && is_v6(ips[0]) == is_v6(ips[1]) {
        path.invalid(errors, list(), "may specify no more than one IP for each IP family");
    }
    for (index, (ip, family)) in ips.iter().zip(texts(spec, &["ipFamilies"])).enumerate() {
        if *ip != "None" && is_v6(ip) != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            path.index(index).invalid(errors, *ip, &why);
        }
    }
}

fn families(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("ipFamilies");
    let families: Vec<&str> = texts(spec, &["ipFamilies"]).collect();
    for (index, family) in families.iter().enumerate() {
        path.index(index).one_of(errors, family, &["IPv4", "IPv6"]);
        if families[..index].contains(family) {
            path.index(index).duplicate(errors, *family);
        }
    }
    if let Some(policy) = at(spec, &["ipFamilyPolicy"]).and_then(Value::as_str) {
        const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        SPEC.child("ipFamilyPolicy").one_of(errors, policy, POLICIES);
    }
}

/// What an update may not do to the addresses: change or take away the first.
pub(super) fn validate_change(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (new, old) = (&new["spec"], &old["spec"]);
    let external = |spec: &Value| text(spec, &["type"]) == "ExternalName";
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    if !is_headless(new) && !is_headless(old) {
        validate_family_change(new, old, errors);
    }
    let path = SPEC.child("clusterIPs");
    let after: Vec<&str> = texts(new, &["clusterIPs"]).collect();
    let before: Vec<&str> = texts(old, &["clusterIPs"]).collect();
    let value = || Value::from(after.clone());
    if before.len() == after.len() {
        for (index, _) in before.iter().zip(&after).enumerate().filter(|(_, (before, after))| before != after) {
            path.index(index).invalid(errors, value(), "may not change once set");
        }
        return;
    }
    if before.len() > after.len() && after.is_empty() {
        path.index(0).invalid(errors, value(), "primary clusterIP can not be unset");
    }
    if let (Some(before), Some(after)) = (before.first(), after.first())
        && before != after
    {
        path.index(0).invalid(errors, value(), "may not change once set");
    }
}

/// The first family stays; the allocation says what may happen to the second.
fn validate_family_change(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (after, before): (Vec<&str>, Vec<&str>) =
        (texts(new, &["ipFamilies"]).collect(), texts(old, &["ipFamilies"]).collect());
    let changed = match before.len() == after.len() {
        true => before != after,
        false => before.first().zip(after.first()).is_some_and(|(before, after)| before != after),
    };
    if changed {
        SPEC.child("ipFamilies").index(0).invalid(errors, Value::from(after), "may not change once set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{builtin, core::service::Service, strategy::Strategy};
    use serde_json::json;

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        Service.default(&mut service);
        service
    }

    #[test]
    fn defaults_are_upstreams() {
        let check = |spec: Value, expected: Value| assert_eq!(service(spec)["spec"], expected);
        check(
            json!({"ports": [{"port": 80}]}),
            json!({"internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}),
        );
        check(
            json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": "http"}]}),
            json!({"internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]}),
        );
        check(
            json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "ClientIP"}),
            json!({"externalName": "a.b", "sessionAffinity": "ClientIP", "type": "ExternalName",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
        );
    }

    #[test]
    fn wrong_services_are_refused() {
        let kind = builtin("", "v1", "Service").unwrap();
        let check = |spec: Value, expected: &[&str]| {
            let errors = kind.validate_create(&service(spec));
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected);
        };
        check(json!({}), &["spec.ports: Required value"]);
        check(json!({"clusterIP": "None", "clusterIPs": ["None"]}), &[]);
        check(
            json!({"ports": [{"port": 80}, {"port": 0, "name": "b"}]}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        );
        check(
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        );
        check(
            json!({"type": "Odd", "ports": [{"port": 80}]}),
            &["spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \
               \"LoadBalancer\", \"NodePort\""],
        );
        check(json!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
    }

    #[test]
    fn updates_keep_what_was_given_and_refuse_another_address() {
        let kind = builtin("", "v1", "Service").unwrap();
        let given = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "nodePort": 30090}]});
        let old = service(given.clone());
        let update = |spec: Value| {
            let mut new = service(spec);
            kind.prepare_update(&mut new, &old, "");
            let errors = kind.validate_update(&new, &old, "");
            (new["spec"].clone(), errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (spec, errors) = update(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        assert_eq!((&spec, errors.len()), (&old["spec"], 0));
        let (spec, errors) = update(json!({"ports": [{"port": 80}]}));
        assert_eq!((&spec["clusterIP"], errors.len()), (&json!("10.96.0.9"), 0));
        let (_, errors) = update(json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}));
        assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]);
        let (spec, errors) = update(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.9"}));
        assert_eq!((spec.get("clusterIP"), errors.len()), (None, 0));
    }

    #[test]
    fn rows_show_addresses_and_ports() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let check = |spec: Value, expected: [&str; 4]| {
            let cells = Service.row(&service(spec), now);
            let shown: Vec<&str> = cells[1..5].iter().filter_map(Value::as_str).collect();
            assert_eq!(shown, expected);
        };
        let ports = json!([{"port": 80, "nodePort": 30090}, {"port": 53, "protocol": "UDP"}]);
        check(
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": ports}),
            ["NodePort", "10.96.0.9", "<none>", "80:30090/TCP,53/UDP"],
        );
        check(json!({"type": "LoadBalancer"}), ["LoadBalancer", "<none>", "<pending>", "<none>"]);
        check(json!({"type": "ExternalName", "externalName": "a.b"}), ["ExternalName", "<none>", "a.b", "<none>"]);
    }
}
