//! Endpoints, the older form of EndpointSlices.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{fill_text, int, items, items_mut, text};

/// Of endpoints.
pub(crate) struct Endpoints;

const COLUMNS: &[Column] = &[NAME, column("Endpoints", "string", "Addresses and ports that are ready"), AGE];

/// How many addresses the row shows.
const SHOWN: usize = 3;

impl Strategy for Endpoints {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, &["subsets"]) {
            items_mut(subset, &["ports"]).iter_mut().for_each(|port| fill_text(port, "protocol", "TCP"));
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let list = Path::root("subsets");
        for (index, subset) in items(object, &["subsets"]).iter().enumerate() {
            subset_errors(subset, &list.index(index), errors);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(ready(object)), age(object, now)]
    }
}

fn subset_errors(subset: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (ready, waiting) = (items(subset, &["addresses"]), items(subset, &["notReadyAddresses"]));
    if ready.is_empty() && waiting.is_empty() {
        path.required(errors, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
        for (index, address) in addresses.iter().enumerate() {
            let list = path.child(field);
            address_errors(address, &list.index(index), errors);
        }
    }
    let ports = items(subset, &["ports"]);
    for (index, port) in ports.iter().enumerate() {
        let list = path.child("ports");
        port_errors(port, ports.len() > 1, &list.index(index), errors);
    }
}

fn address_errors(address: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ip = text(address, &["ip"]);
    let wrong = formats::ip(ip);
    match wrong.is_empty() {
        true => special_ip(ip, &path.child("ip"), errors),
        false => path.child("ip").check(errors, ip, wrong),
    }
    let hostname = text(address, &["hostname"]);
    if !hostname.is_empty() {
        path.child("hostname").check(errors, hostname, formats::label(hostname));
    }
    let node = text(address, &["nodeName"]);
    if !node.is_empty() {
        path.child("nodeName").check(errors, node, formats::subdomain(node));
    }
}

/// Addresses that no endpoint can have.
pub(crate) fn special_ip(ip: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Ok(address) = ip.parse::<std::net::IpAddr>() else { return };
    let (link_local, link_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    for (special, why) in [
        (address.is_unspecified(), format!("may not be unspecified ({ip})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ] {
        if special {
            path.invalid(errors, ip, &why);
        }
    }
}

fn port_errors(port: &Value, named: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(port, &["name"]) {
        "" if named => path.child("name").required(errors, ""),
        "" => {}
        name => path.child("name").check(errors, name, formats::label(name)),
    }
    let number = int(port, &["port"]).unwrap_or(0);
    path.child("port").check_number(errors, number, formats::port_number(number));
    path.child("protocol").required_one_of(errors, text(port, &["protocol"]), &["SCTP", "TCP", "UDP"]);
    let protocol = text(port, &["appProtocol"]);
    if !protocol.is_empty() {
        path.child("appProtocol").check(errors, protocol, formats::qualified_name(protocol));
    }
}

fn ready(endpoints: &Value) -> String {
    if items(endpoints, &["subsets"]).is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in items(endpoints, &["subsets"]) {
        let addresses = || items(subset, &["addresses"]).iter().map(|address| text(address, &["ip"]));
        match items(subset, &["ports"]) {
            [] => all.extend(addresses().map(str::to_owned)),
            ports => {
                for port in ports {
                    let number = int(port, &["port"]).unwrap_or(0);
                    all.extend(addresses().map(|ip| join(ip, number)));
                }
            }
        }
    }
    match all.len() {
        ..=SHOWN => all.join(","),
        count => format!("{} + {} more...", all[..SHOWN].join(","), count - SHOWN),
    }
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_show_three() {
        let addresses =
            |count: usize| -> Vec<Value> { (1..=count).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect() };
        for (subsets, expected) in [
            (json!([]), "<none>"),
            (json!([{"addresses": addresses(1), "ports": [{"port": 80}]}]), "10.0.0.1:80"),
            (
                json!([{"addresses": addresses(3), "ports": [{"port": 80}, {"port": 443}]}]),
                "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 3 more...",
            ),
            (json!([{"addresses": addresses(2)}]), "10.0.0.1,10.0.0.2"),
            (json!([{"notReadyAddresses": addresses(2), "ports": [{"port": 80}]}]), ""),
        ] {
            assert_eq!(ready(&json!({"subsets": subsets})), expected);
        }
    }

    #[test]
    fn wrong_endpoints_are_refused() {
        let mut errors = Vec::new();
        let wrong =
            json!({"subsets": [{}, {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80, "protocol": "X"}]}]});
        Endpoints.validate_create(&wrong, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
                "subsets[1].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
    }
}
