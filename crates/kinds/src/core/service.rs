//! Services.
//!
//! Not allocation: cluster IPs, IP families, node ports and health-check ports are the API server's to draw, between
//! preparation and validation. The invariant: `clusterIP` is always the first of `clusterIPs`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use super::service_cluster_ips as cluster_ips;
use crate::formats;
use crate::metadata::label_errors;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, labels, name, or_none, wide};
use crate::value::{at, at_mut, child, fill, fill_text, int, is_set, items, items_mut, remove, set, text, texts};

/// Of services.
pub(crate) struct Service;

const SPEC: Path<'static> = Path::root("spec");

const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "How the service is exposed"),
    column("Cluster-IP", "string", "Virtual address inside the cluster"),
    column("External-IP", "string", "Addresses from outside"),
    column("Port(s)", "string", "Ports, node ports and protocols"),
    AGE,
    wide("Selector", "string", "Labels of the pods behind it"),
];

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Label1035
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            default_spec(spec);
        }
        let balanced = text(object, &["spec", "type"]) == "LoadBalancer";
        if let Some(status) = child(object, "status") {
            fill(status, "loadBalancer", json!({}));
            for ingress in items_mut(status, &["loadBalancer", "ingress"]) {
                if balanced && is_set(ingress, &["ip"]) {
                    fill(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        set(object, "status", json!({"loadBalancer": {}}));
        cluster_ips::normalize(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        cluster_ips::keep_allocated(new, old);
        cluster_ips::drop_what_the_type_lost(new, old);
        cluster_ips::normalize(new, Some(old));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        cluster_ips::validate_change(new, old, errors);
        let balanced = |service: &Value| text(service, &["spec", "type"]) == "LoadBalancer";
        let class = |service: &Value| text(service, &["spec", "loadBalancerClass"]).to_owned();
        if balanced(new) && balanced(old) && class(new) != class(old) {
            SPEC.child("loadBalancerClass").invalid(errors, class(new), "may not change once set");
        }
        validate(new, errors);
    }

    fn fields(&self) -> &[&str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let ports: Vec<String> = items(spec, &["ports"]).iter().map(port_cell).collect();
        let cluster_ip = texts(spec, &["clusterIPs"]).next().unwrap_or_default();
        vec![
            name(object),
            Value::from(text(spec, &["type"])),
            Value::from(or_none(cluster_ip)),
            Value::from(external_ip(object)),
            Value::from(or_none(ports.join(","))),
            age(object, now),
            Value::from(labels(spec, &["selector"])),
        ]
    }
}

fn default_spec(spec: &mut Value) {
    fill_text(spec, "sessionAffinity", "None");
    match text(spec, &["sessionAffinity"]) {
        "None" => drop(remove(spec, "sessionAffinityConfig")),
        "ClientIP" if int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
        _ => {}
    }
    fill_text(spec, "type", "ClusterIP");
    for port in items_mut(spec, &["ports"]) {
        fill_text(port, "protocol", "TCP");
        let unset = matches!(at(port, &["targetPort"]), None | Some(Value::Number(_)))
            && int(port, &["targetPort"]).unwrap_or(0) == 0
            || text(port, &["targetPort"]).is_empty() && at(port, &["targetPort"]).is_some_and(Value::is_string);
        if let (true, Some(number)) = (unset, int(port, &["port"])) {
            set(port, "targetPort", number);
        }
    }
    if is_external(spec) {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(text(spec, &["type"]), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if text(spec, &["type"]) == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether traffic comes in from outside the cluster.
fn is_external(spec: &Value) -> bool {
    match text(spec, &["type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => is_set(spec, &["externalIPs"]),
        _ => false,
    }
}

fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let headless = cluster_ips::is_headless(spec);
    let kind = text(spec, &["type"]);
    if items(spec, &["ports"]).is_empty() && !headless && kind != "ExternalName" {
        SPEC.child("ports").required(errors, "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            SPEC.child("clusterIPs").index(0).invalid(errors, "None", &why);
        }
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
    ports(spec, errors);
    label_errors(spec, "selector", &SPEC, errors);
    session_affinity(spec, errors);
    cluster_ips::validate(spec, errors);
    for (index, ip) in texts(spec, &["externalIPs"]).enumerate() {
        SPEC.child("externalIPs").index(index).check(errors, ip, formats::ip(ip));
    }
    const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    SPEC.child("type").required_one_of(errors, kind, TYPES);
    port_uniqueness(spec, errors);
    load_balancer(spec, errors);
    traffic_policies(spec, errors);
}

fn external_name(spec: &Value, errors: &mut Vec<FieldError>) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_set(spec, &[field]) {
            SPEC.child(field).forbidden(errors, "may not be set for ExternalName services");
        }
    }
    let name = text(spec, &["externalName"]);
    match name.strip_suffix('.').unwrap_or(name) {
        "" => SPEC.child("externalName").required(errors, ""),
        name => SPEC.child("externalName").check(errors, name, formats::subdomain(name)),
    }
}

fn ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let ports = items(spec, &["ports"]);
    for (index, port) in ports.iter().enumerate() {
        let list = SPEC.child("ports");
        let path = list.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            path.child("name").check(errors, name, formats::label(name));
            if ports[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
                path.child("name").duplicate(errors, name);
            }
        } else if ports.len() > 1 {
            path.child("name").required(errors, "");
        }
        let number = int(port, &["port"]).unwrap_or(0);
        path.child("port").check_number(errors, number, formats::port_number(number));
        path.child("protocol").required_one_of(errors, text(port, &["protocol"]), &["SCTP", "TCP", "UDP"]);
        match at(port, &["targetPort"]) {
            Some(Value::String(name)) => path.child("targetPort").check(errors, name, formats::port_name(name)),
            other => {
                let number = other.and_then(Value::as_i64).unwrap_or(0);
                path.child("targetPort").check_number(errors, number, formats::port_number(number));
            }
        }
        if let Some(protocol) = at(port, &["appProtocol"]).and_then(Value::as_str) {
            path.child("appProtocol").check(errors, protocol, formats::qualified_name(protocol));
        }
    }
}

fn port_uniqueness(spec: &Value, errors: &mut Vec<FieldError>) {
    let ports = items(spec, &["ports"]);
    let list = SPEC.child("ports");
    let key = |port: &Value, field: &str| (text(port, &["protocol"]).to_owned(), int(port, &[field]).unwrap_or(0));
    for (index, port) in ports.iter().enumerate() {
        let node_port = int(port, &["nodePort"]).unwrap_or(0);
        if node_port != 0 && text(spec, &["type"]) == "ClusterIP" {
            list.index(index).child("nodePort").forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
        let earlier = &ports[..index];
        if node_port != 0 && earlier.iter().any(|other| key(other, "nodePort") == key(port, "nodePort")) {
            list.index(index).child("nodePort").duplicate(errors, node_port);
        }
        if earlier.iter().any(|other| key(other, "port") == key(port, "port")) {
            let (protocol, number) = key(port, "port");
            list.index(index).duplicate(errors, json!({"port": number, "protocol": protocol}));
        }
    }
}

fn session_affinity(spec: &Value, errors: &mut Vec<FieldError>) {
    let affinity = text(spec, &["sessionAffinity"]);
    SPEC.child("sessionAffinity").required_one_of(errors, affinity, &["ClientIP", "None"]);
    let config = SPEC.child("sessionAffinityConfig");
    match affinity {
        "ClientIP" => {
            let path = config.child("clientIP");
            if let Some(seconds) = int(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
                && !(1..=86_400).contains(&seconds)
            {
                let why = "must be greater than 0 and less than 86400";
                path.child("timeoutSeconds").invalid(errors, seconds, why);
            }
        }
        "None" if at(spec, &["sessionAffinityConfig"]).is_some() => {
            config.forbidden(errors, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn load_balancer(spec: &Value, errors: &mut Vec<FieldError>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = text(spec, &["type"]) == "LoadBalancer";
    // Upstream writes this path with a capital letter.
    let ranges = SPEC.child("LoadBalancerSourceRanges");
    if is_set(spec, &["loadBalancerSourceRanges"]) && !balanced {
        ranges.forbidden(errors, ONLY);
    }
    for (index, range) in texts(spec, &["loadBalancerSourceRanges"]).map(str::trim).enumerate() {
        ranges.index(index).check(errors, range, formats::cidr(range));
    }
    if at(spec, &["allocateLoadBalancerNodePorts"]).is_some() && !balanced {
        SPEC.child("allocateLoadBalancerNodePorts").forbidden(errors, ONLY);
    }
    if let Some(class) = at(spec, &["loadBalancerClass"]).and_then(Value::as_str) {
        let path = SPEC.child("loadBalancerClass");
        match balanced {
            true => path.check(errors, class, formats::qualified_name(class)),
            false => path.forbidden(errors, ONLY),
        }
    }
}

fn traffic_policies(spec: &Value, errors: &mut Vec<FieldError>) {
    let policy = text(spec, &["externalTrafficPolicy"]);
    let path = SPEC.child("externalTrafficPolicy");
    match is_external(spec) {
        true => path.required_one_of(errors, policy, &["Cluster", "Local"]),
        false if !policy.is_empty() => {
            path.invalid(errors, policy, "may only be set for externally-accessible services");
        }
        false => {}
    }
    let checked = text(spec, &["type"]) == "LoadBalancer" && policy == "Local";
    let port = int(spec, &["healthCheckNodePort"]).unwrap_or(0);
    let path = SPEC.child("healthCheckNodePort");
    match (checked, port) {
        (false, 0) => {}
        (false, _) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            path.invalid(errors, port, why);
        }
        // The allocator draws one.
        (true, 0) => {}
        (true, _) => path.check_number(errors, port, formats::port_number(port)),
    }
    if let Some(policy) = at(spec, &["internalTrafficPolicy"]).and_then(Value::as_str) {
        SPEC.child("internalTrafficPolicy").one_of(errors, policy, &["Cluster", "Local"]);
    }
    if let Some(distribution) = at(spec, &["trafficDistribution"]).and_then(Value::as_str) {
        const KNOWN: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
        SPEC.child("trafficDistribution").one_of(errors, distribution, KNOWN);
    }
}

fn port_cell(port: &Value) -> String {
    let (number, protocol) = (int(port, &["port"]).unwrap_or(0), text(port, &["protocol"]));
    match int(port, &["nodePort"]).unwrap_or(0) {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let external: Vec<&str> = texts(service, &["spec", "externalIPs"]).collect();
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => or_none(external.join(",")),
        "LoadBalancer" => {
            let mut all = load_balancer_addresses(service);
            all.extend(external);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses or names in `status.loadBalancer.ingress`, sorted.
pub(crate) fn load_balancer_addresses(object: &Value) -> Vec<&str> {
    let mut all: Vec<&str> = items(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|ingress| match text(ingress, &["ip"]) {
            "" => text(ingress, &["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Sets every node port of a service to nothing.
pub(super) fn clear_node_ports(spec: &mut Value) {
    for port in items_mut(spec, &["ports"]) {
        remove(port, "nodePort");
    }
}

/// The node port that a service has for a port and protocol.
pub(super) fn node_port_of(spec: &Value, port: &Value) -> Option<i64> {
    let same = |other: &&Value| {
        int(other, &["port"]) == int(port, &["port"]) && text(other, &["protocol"]) == text(port, &["protocol"])
    };
    items(spec, &["ports"]).iter().find(same).and_then(|found| int(found, &["nodePort"])).filter(|port| *port != 0)
}

/// The spec, to be changed.
pub(super) fn spec_mut(service: &mut Value) -> Option<&mut Value> {
    at_mut(service, &["spec"])
}
