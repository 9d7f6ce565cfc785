//! NetworkPolicies.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name, selector};
use crate::value::{at, child, fill, int, is_set, items, items_mut, set, text, texts};
use crate::workload::SPEC;

/// Of networkpolicies.
pub(super) struct NetworkPolicy;

const COLUMNS: &[Column] = &[NAME, column("Pod-Selector", "string", "Pods that it holds for"), AGE];

impl Strategy for NetworkPolicy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        fill(spec, "podSelector", json!({}));
        if !is_set(spec, &["policyTypes"]) {
            let types: &[&str] = if is_set(spec, &["egress"]) { &["Ingress", "Egress"] } else { &["Ingress"] };
            set(spec, "policyTypes", types);
        }
        for direction in ["ingress", "egress"] {
            for rule in items_mut(spec, &[direction]) {
                items_mut(rule, &["ports"]).iter_mut().for_each(|port| fill(port, "protocol", "TCP"));
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        label_selector_errors(&spec["podSelector"], &SPEC.child("podSelector"), errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (index, rule) in items(spec, &[direction]).iter().enumerate() {
                let list = SPEC.child(direction);
                let path = list.index(index);
                for (index, port) in items(rule, &["ports"]).iter().enumerate() {
                    let list = path.child("ports");
                    port_errors(port, &list.index(index), errors);
                }
                for (index, peer) in items(rule, &[peers]).iter().enumerate() {
                    let list = path.child(peers);
                    peer_errors(peer, &list.index(index), errors);
                }
            }
        }
        let types = items(spec, &["policyTypes"]);
        let path = SPEC.child("policyTypes");
        if types.len() > 2 {
            return path.invalid(errors, types.to_vec(), "may not specify more than two policyTypes");
        }
        for (index, kind) in texts(spec, &["policyTypes"]).enumerate() {
            path.index(index).one_of(errors, kind, &["Egress", "Ingress"]);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(selector(object, &["spec", "podSelector"])), age(object, now)]
    }
}

fn port_errors(port: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(protocol) = at(port, &["protocol"]).and_then(Value::as_str) {
        path.child("protocol").one_of(errors, protocol, &["SCTP", "TCP", "UDP"]);
    }
    let end = int(port, &["endPort"]);
    match (at(port, &["port"]), end) {
        (Some(Value::String(name)), end) => {
            path.child("port").check(errors, name, formats::port_name(name));
            if let Some(end) = end {
                path.child("endPort").invalid(errors, end, "may not be specified when `port` is non-numeric");
            }
        }
        (Some(number), end) => {
            let number = number.as_i64().unwrap_or(0);
            path.child("port").check_number(errors, number, formats::port_number(number));
            if let Some(end) = end {
                if end < number {
                    path.child("endPort").invalid(errors, end, "must be greater than or equal to `port`");
                }
                path.child("endPort").check_number(errors, end, formats::port_number(end));
            }
        }
        (None, Some(end)) => {
            path.child("endPort").invalid(errors, end, "may not be specified when `port` is not specified");
        }
        (None, None) => {}
    }
}

fn peer_errors(peer: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut peers = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = at(peer, &[field]) {
            peers += 1;
            label_selector_errors(selector, &path.child(field), errors);
        }
    }
    if let Some(block) = at(peer, &["ipBlock"]) {
        ip_block(block, &path.child("ipBlock"), errors);
        if peers > 0 {
            path.forbidden(errors, "may not specify both ipBlock and another peer");
        }
    } else if peers == 0 {
        path.required(errors, "must specify a peer");
    }
}

fn ip_block(block: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let cidr = text(block, &["cidr"]);
    if cidr.is_empty() {
        return path.child("cidr").required(errors, "");
    }
    let wrong = formats::cidr(cidr);
    if !wrong.is_empty() {
        return path.child("cidr").check(errors, cidr, wrong);
    }
    for (index, except) in texts(block, &["except"]).enumerate() {
        let list = path.child("except");
        let path = list.index(index);
        let wrong = formats::cidr(except);
        match (wrong.is_empty(), formats::parse_cidr(cidr), formats::parse_cidr(except)) {
            (true, Some(outer), Some(inner)) if !is_within(inner, outer) => {
                let why = format!("must be a strict subset of `cidr`: {cidr:?}");
                path.invalid(errors, except, &why);
            }
            _ => path.check(errors, except, wrong),
        }
    }
}

/// Whether the first network is a true part of the second.
fn is_within(inner: (std::net::IpAddr, u8), outer: (std::net::IpAddr, u8)) -> bool {
    use std::net::IpAddr::{V4, V6};
    let (inner_bits, outer_bits, width) = match (inner.0, outer.0) {
        (V4(inner), V4(outer)) => (u128::from(inner.to_bits()), u128::from(outer.to_bits()), 32),
        (V6(inner), V6(outer)) => (inner.to_bits(), outer.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::from(width - outer.1);
    let prefix = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
    inner.1 > outer.1 && prefix(inner_bits) == prefix(outer_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_defaulted_and_checked() {
        let check = |spec: Value, expected: &[&str]| {
            let mut object = json!({"spec": spec});
            NetworkPolicy.default(&mut object);
            let mut errors = Vec::new();
            NetworkPolicy.validate_create(&object, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(json!({}), &[]);
        check(
            json!({"ingress": [{"from": [{}], "ports": [{"port": "web", "endPort": 9}, {"endPort": 9}]}]}),
            &[
                "spec.ingress[0].ports[0].endPort: Invalid value: 9: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[1].endPort: Invalid value: 9: may not be specified when `port` is not specified",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ],
        );
        check(
            json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}]}]}),
            &["spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of \
               `cidr`: \"10.0.0.0/8\""],
        );
    }

    #[test]
    fn types_follow_the_rules() {
        for (spec, types) in [
            (json!({}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"policyTypes": ["Egress"]}), json!(["Egress"])),
        ] {
            let mut object = json!({"spec": spec});
            NetworkPolicy.default(&mut object);
            assert_eq!(object["spec"]["policyTypes"], types);
        }
    }
}
