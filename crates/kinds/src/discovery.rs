//! The kinds of `discovery.k8s.io`: EndpointSlices.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::core::endpoints::special_ip;
use crate::formats;
use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, first_three, name};
use crate::value::{at, fill, int, items, items_mut, text, texts};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "endpointslices" => &EndpointSlice,
        _ => &Generic::PLAIN,
    }
}

/// Of endpointslices.
struct EndpointSlice;

const COLUMNS: &[Column] = &[
    NAME,
    column("AddressType", "string", "IPv4, IPv6 or FQDN"),
    column("Ports", "string", "Ports of the endpoints"),
    column("Endpoints", "string", "Addresses of the endpoints"),
    AGE,
];

/// The most endpoints, ports and addresses per endpoint that a slice may have.
const MOST: (usize, usize, usize) = (1000, 20_000, 100);

impl Strategy for EndpointSlice {
    fn has_generation(&self) -> bool {
        true
    }

    /// Labels count too, since they say which service the slice is of.
    fn is_new_generation(&self, new: &Value, old: &Value) -> bool {
        let changed = |path: &[&str]| at(new, path) != at(old, path);
        changed(&["endpoints"]) || changed(&["ports"]) || changed(&["metadata", "labels"])
    }

    fn default(&self, object: &mut Value) {
        fill(object, "endpoints", Value::Null);
        fill(object, "ports", Value::Null);
        for endpoint in items_mut(object, &["endpoints"]) {
            fill(endpoint, "conditions", json!({}));
        }
        for port in items_mut(object, &["ports"]) {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let kind = text(object, &["addressType"]);
        Path::root("addressType").required_one_of(errors, kind, &["FQDN", "IPv4", "IPv6"]);
        endpoints(items(object, &["endpoints"]), kind, &Path::root("endpoints"), errors);
        ports(items(object, &["ports"]), &Path::root("ports"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        Path::root("addressType").immutable(errors, at(new, &["addressType"]), at(old, &["addressType"]));
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = items(object, &["ports"])
            .iter()
            .map(|port| match (int(port, &["port"]), at(port, &["name"]).and_then(Value::as_str)) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let endpoints = items(object, &["endpoints"]);
        let addresses: Vec<String> =
            endpoints.iter().flat_map(|endpoint| texts(endpoint, &["addresses"])).map(str::to_owned).collect();
        vec![
            name(object),
            Value::from(text(object, &["addressType"])),
            Value::from(first_three(&ports)),
            Value::from(first_three(&addresses)),
            age(object, now),
        ]
    }
}

fn endpoints(endpoints: &[Value], kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if endpoints.len() > MOST.0 {
        return path.too_many(errors, endpoints.len(), MOST.0);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let list = path.child("addresses");
        let addresses = items(endpoint, &["addresses"]);
        if addresses.is_empty() {
            list.required(errors, "must contain at least 1 address");
        } else if addresses.len() > MOST.2 {
            list.too_many(errors, addresses.len(), MOST.2);
        }
        for (index, address) in texts(endpoint, &["addresses"]).enumerate() {
            address_errors(address, kind, &list.index(index), errors);
        }
        for (field, rule) in [
            ("nodeName", formats::subdomain as fn(&str) -> Vec<String>),
            ("zone", formats::label_value),
            ("hostname", formats::label),
        ] {
            let value = text(endpoint, &[field]);
            if !value.is_empty() {
                path.child(field).check(errors, value, rule(value));
            }
        }
    }
}

fn address_errors(address: &str, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match kind {
        "IPv4" | "IPv6" => {
            let right = match address.parse::<std::net::IpAddr>() {
                Ok(parsed) => parsed.is_ipv4() == (kind == "IPv4"),
                Err(_) => false,
            };
            match right {
                true => special_ip(address, path, errors),
                false => path.invalid(errors, address, &format!("must be a valid {kind} address")),
            }
        }
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let mut wrong = formats::subdomain(name);
            if wrong.is_empty() && !name.contains('.') {
                wrong.push("should be a domain with at least two segments separated by dots".to_owned());
            }
            path.check(errors, address, wrong);
        }
        _ => {}
    }
}

fn ports(ports: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if ports.len() > MOST.1 {
        return path.too_many(errors, ports.len(), MOST.1);
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            path.child("name").check(errors, name, formats::label(name));
        }
        if ports[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
            path.child("name").duplicate(errors, name);
        }
        path.child("protocol").required_one_of(errors, text(port, &["protocol"]), &["SCTP", "TCP", "UDP"]);
        let protocol = text(port, &["appProtocol"]);
        if !protocol.is_empty() {
            path.child("appProtocol").check(errors, protocol, formats::qualified_name(protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_checked_and_shown() {
        let check = |slice: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            EndpointSlice.validate_create(&slice, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let good = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        check(good.clone(), &[]);
        check(
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["10.0.0.1"]}, {}]}),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ],
        );
        check(json!({}), &["addressType: Required value"]);
        let row = EndpointSlice.row(&good, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["web-1", "IPv4", "80", "10.0.0.1,10.0.0.2", "<unknown>"]));
        let empty = EndpointSlice.row(&json!({"metadata": {}}), Timestamp::UNIX_EPOCH);
        assert_eq!((&empty[2], &empty[3]), (&json!("<unset>"), &json!("<unset>")));
    }
}
