//! Ingresses and their classes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::core::service::load_balancer_addresses;
use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, name, or_none};
use crate::value::{at, at_mut, child, fill, int, is_set, items, set, text, texts};
use crate::workload::SPEC;

/// Of ingresses.
pub(super) struct Ingress;

/// Of ingressclasses.
pub(super) struct IngressClass;

const COLUMNS: &[Column] = &[
    NAME,
    column("Class", "string", "Class that serves it"),
    column("Hosts", "string", "Hosts of its rules"),
    column("Address", "string", "Addresses of the load balancer"),
    column("Ports", "string", "Ports that it opens"),
    AGE,
];

const CLASS_COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "Controller that serves the class"),
    column("Parameters", "string", "Object with further parameters"),
    AGE,
];

impl Strategy for Ingress {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            fill(status, "loadBalancer", json!({}));
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        set(object, "status", json!({"loadBalancer": {}}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        const ANNOTATION: &str = "kubernetes.io/ingress.class";
        if let (Some(class), true) =
            (at(object, &["metadata", "annotations", ANNOTATION]), is_set(object, &["spec", "ingressClassName"]))
        {
            let metadata = Path::root("metadata");
            let annotations = metadata.child("annotations");
            let why = "can not be set when the class field is also set";
            annotations.child(ANNOTATION).invalid(errors, class.clone(), why);
        }
        validate_spec(&object["spec"], errors);
    }

    fn validate_update(&self, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(&new["spec"], errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ports = if is_set(object, &["spec", "tls"]) { "80, 443" } else { "80" };
        vec![
            name(object),
            Value::from(or_none(text(object, &["spec", "ingressClassName"]))),
            Value::from(hosts(items(object, &["spec", "rules"]))),
            Value::from(load_balancer_addresses(object).join(",")),
            Value::from(ports),
            age(object, now),
        ]
    }
}

fn hosts(rules: &[Value]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == 3;
        let host = text(rule, &["host"]);
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - 3),
    }
}

fn validate_spec(spec: &Value, errors: &mut Vec<FieldError>) {
    let rules = items(spec, &["rules"]);
    if rules.is_empty() && at(spec, &["defaultBackend"]).is_none() {
        let value = at(spec, &["rules"]).cloned().unwrap_or(Value::Null);
        SPEC.invalid(errors, value, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = at(spec, &["defaultBackend"]) {
        backend(default, &SPEC.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let list = SPEC.child("rules");
        let path = list.index(index);
        let host = text(rule, &["host"]);
        if !host.is_empty() {
            host_errors(host, &path.child("host"), errors);
        }
        if let Some(http) = at(rule, &["http"]) {
            let path = path.child("http");
            paths(items(http, &["paths"]), &path.child("paths"), errors);
        }
    }
    for (index, tls) in items(spec, &["tls"]).iter().enumerate() {
        let list = SPEC.child("tls");
        let path = list.index(index);
        for (index, host) in texts(tls, &["hosts"]).enumerate() {
            host_errors(host, &path.child("hosts").index(index), errors);
        }
        let secret = text(tls, &["secretName"]);
        if !secret.is_empty() {
            path.child("secretName").check(errors, secret, formats::subdomain(secret));
        }
    }
    if let Some(class) = at(spec, &["ingressClassName"]).and_then(Value::as_str) {
        SPEC.child("ingressClassName").check(errors, class, formats::subdomain(class));
    }
}

fn host_errors(host: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        path.invalid(errors, host, "must be a DNS name, not an IP address");
    }
    match host.contains('*') {
        true => path.check(errors, host, formats::wildcard_subdomain(host)),
        false => path.check(errors, host, formats::subdomain(host)),
    }
}

fn paths(paths: &[Value], list: &Path<'_>, errors: &mut Vec<FieldError>) {
    if paths.is_empty() {
        list.required(errors, "");
    }
    for (index, one) in paths.iter().enumerate() {
        let path = list.index(index);
        let value = text(one, &["path"]);
        match text(one, &["pathType"]) {
            "" => path.child("pathType").required(errors, "pathType must be specified"),
            "Exact" | "Prefix" => exact_path(value, &path.child("path"), errors),
            "ImplementationSpecific" => {
                if !value.is_empty() && !value.starts_with('/') {
                    path.child("path").invalid(errors, value, "must be an absolute path");
                }
            }
            other => {
                path.child("pathType").one_of(errors, other, &["Exact", "ImplementationSpecific", "Prefix"]);
            }
        }
        backend(&one["backend"], &path.child("backend"), errors);
    }
}

fn exact_path(value: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !value.starts_with('/') {
        path.invalid(errors, value, "must be an absolute path");
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| value.contains(**part)) {
        path.invalid(errors, value, &format!("must not contain '{part}'"));
    }
    for end in ["/..", "/."].iter().filter(|end| value.ends_with(**end)) {
        path.invalid(errors, value, &format!("cannot end with '{end}'"));
    }
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (service, resource) = (at(backend, &["service"]), at(backend, &["resource"]));
    match (service, resource) {
        (Some(_), Some(_)) => path.invalid(errors, "", "cannot set both resource and service backends"),
        (None, None) => path.invalid(errors, "", "resource or service backend is required"),
        (None, Some(resource)) => {
            for field in ["kind", "name"].iter().filter(|field| text(resource, &[field]).is_empty()) {
                path.child("resource").child(field).required(errors, "");
            }
        }
        (Some(service), None) => service_backend(service, &path.child("service"), errors),
    }
}

fn service_backend(service: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(service, &["name"]) {
        "" => path.child("name").required(errors, ""),
        name => path.child("name").check(errors, name, formats::label_1035(name)),
    }
    let (name, number) = (text(service, &["port", "name"]), int(service, &["port", "number"]).unwrap_or(0));
    let port = path.child("port");
    match (name, number) {
        ("", 0) => path.required(errors, "port name or number is required"),
        ("", number) => port.child("number").check_number(errors, number, formats::port_number(number)),
        (name, 0) => port.child("name").check(errors, name, formats::port_name(name)),
        _ => path.invalid(errors, "", "cannot set both port name & port number"),
    }
}

impl Strategy for IngressClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(parameters) = at_mut(object, &["spec", "parameters"]) {
            fill(parameters, "scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let controller = text(object, &["spec", "controller"]);
        if controller.len() > 250 {
            SPEC.child("controller").too_long(errors, 250);
        }
        if controller.is_empty() {
            SPEC.child("controller").required(errors, "");
        } else if controller.split_once('/').is_none_or(|(domain, rest)| domain.is_empty() || rest.is_empty()) {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            SPEC.child("controller").invalid(errors, controller, why);
        }
        if let Some(parameters) = at(object, &["spec", "parameters"]) {
            let path = SPEC.child("parameters");
            for field in ["kind", "name"].iter().filter(|field| text(parameters, &[field]).is_empty()) {
                path.child(field).required(errors, &format!("{field} is required"));
            }
            path.child("scope").required_one_of(errors, text(parameters, &["scope"]), &["Cluster", "Namespace"]);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        SPEC.child("controller").immutable(errors, at(new, &["spec", "controller"]), at(old, &["spec", "controller"]));
    }

    fn columns(&self) -> &[Column] {
        CLASS_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parameters = at(object, &["spec", "parameters"]).map_or_else(
            || "<none>".to_owned(),
            |parameters| {
                let group = at(parameters, &["apiGroup"]).and_then(Value::as_str);
                let dot = group.map(|group| format!(".{group}")).unwrap_or_default();
                format!("{}{dot}/{}", text(parameters, &["kind"]), text(parameters, &["name"]))
            },
        );
        let controller = text(object, &["spec", "controller"]);
        vec![name(object), Value::from(controller), Value::from(parameters), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingresses_are_checked() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            Ingress.validate_create(&json!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let web = json!({"service": {"name": "web", "port": {"number": 80}}});
        let rule = |path: Value| json!({"rules": [{"host": "a.b", "http": {"paths": [path]}}]});
        check(rule(json!({"path": "/", "pathType": "Prefix", "backend": web})), &[]);
        check(json!({}), &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
        check(
            rule(json!({"path": "a//b", "pathType": "Exact", "backend": {}})),
            &[
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ],
        );
        check(
            rule(json!({"path": "/", "backend": web})),
            &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
        );
        check(
            json!({"defaultBackend": {"service": {"name": "web", "port": {}}}}),
            &["spec.defaultBackend.service: Required value: port name or number is required"],
        );
    }

    #[test]
    fn rows_show_three_hosts() {
        let rules = |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"host": format!("h{n}")})).collect() };
        for (count, expected) in [(0, "*"), (2, "h0,h1"), (3, "h0,h1,h2"), (5, "h0,h1,h2 + 2 more...")] {
            assert_eq!(hosts(&rules(count)), expected);
        }
    }
}
