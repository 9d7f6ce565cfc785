//! What is wrong between Services and the records of their addresses, and what is said about it in upstream's words.
//!
//! Pure. Invariant: what the repair leaves behind is right.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kedge_meta::parse_time;
use serde_json::Value;

use crate::object;
use crate::own_request::Finding;

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// An allocator that writes the record before the Service needs no longer than a request may take.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How long such an allocator may need to take its record back.
const ROLLBACK: SignedDuration = SignedDuration::from_secs(5);

/// What becomes of the record of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It stays as it is.
    Keep,
    /// It stays, and something is to be said.
    Tell(Finding),
    /// It is written; one that is there is deleted before.
    Write(Option<Finding>),
    /// It is too young to be judged, for so long.
    Wait(Duration),
    /// It is deleted.
    Delete(Finding),
}

/// The addresses that a Service has.
pub(super) fn addresses(service: &Value) -> Vec<IpAddr> {
    if matches!(object::text(service, &["spec", "clusterIP"]), "" | "None") {
        return Vec::new();
    }
    let listed = object::list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    listed.filter_map(|address| address.parse().ok()).collect()
}

/// Namespace and name of the Service that a record names; `None` where it names something else.
pub(super) fn parent(record: &Value) -> Option<(&str, &str)> {
    let text = |field: &str| object::text(record, &["spec", "parentRef", field]);
    (text("group").is_empty() && text("resource") == "services").then(|| (text("namespace"), text("name")))
}

/// Of an address that a Service has; `named` is the Service that the record names, where there is one.
pub(super) fn plan_held(
    service: &Value,
    address: IpAddr,
    is_in_range: bool,
    record: Option<&Value>,
    named: Option<&Value>,
) -> Plan {
    let family = family(address);
    let (namespace, name) = (object::namespace(service), object::name(service));
    let finding = |reason, text: String| (reason, "ClusterIPAllocation", text);
    if !is_in_range {
        let text = format!(
            "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return Plan::Tell(finding("ClusterIPOutOfRange", text));
    }
    let Some(record) = record else {
        let text = format!("Cluster IP [{family}]: {address} is not allocated; repairing");
        return Plan::Write(Some(finding("ClusterIPNotAllocated", text)));
    };
    let wrong = || {
        let text = format!(
            "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
        );
        Plan::Write(Some(finding("ClusterIPNotAllocated", text)))
    };
    match (parent(record), named) {
        (None, _) => wrong(),
        (Some(parent), _) if parent == (namespace, name) => {
            if is_labelled(record, address) {
                Plan::Keep
            } else {
                Plan::Write(None)
            }
        }
        (Some(_), Some(other)) if addresses(other).contains(&address) => {
            let text =
                format!("Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service");
            Plan::Tell(finding("ClusterIPAlreadyAllocated", text))
        }
        // A Service that is gone, or that has given the address back.
        (Some(_), _) => wrong(),
    }
}

/// Of a record by itself; `named` is the Service that it names, where there is one.
pub(super) fn plan_record(record: &Value, named: Option<&Value>, now: Timestamp) -> Plan {
    if object::label(record, MANAGED_BY.0) != Some(MANAGED_BY.1) {
        return Plan::Keep;
    }
    let address = object::name(record);
    let finding = |reason, text: String| Plan::Delete((reason, "IPAddressAllocation", text));
    let Some((namespace, name)) = parent(record) else {
        let reference = object::at(record, &["spec", "parentRef"]).map(Value::to_string).unwrap_or_default();
        let text = format!(
            "IPAddress {address} appears to have been modified, not referencing a Service {reference}: cleaning up"
        );
        return finding("IPAddressNotAllocated", text);
    };
    let age = age(record, now);
    let Some(service) = named else {
        let text = format!("IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up");
        return younger(age, GRACE).unwrap_or_else(|| finding("IPAddressNotAllocated", text));
    };
    let is_held = address.parse().is_ok_and(|address| addresses(service).contains(&address));
    let grace = if object::text(service, &["spec", "type"]) == "ExternalName" { GRACE } else { ROLLBACK };
    if is_held {
        return Plan::Keep;
    }
    let text = format!("IPAddress: {address} for Service {namespace}/{name} has a wrong reference; cleaning up");
    younger(age, grace).unwrap_or_else(|| finding("IPAddressWrongReference", text))
}

fn younger(age: SignedDuration, grace: SignedDuration) -> Option<Plan> {
    let left = Duration::try_from(grace.checked_sub(age)?).ok()?;
    (!left.is_zero()).then_some(Plan::Wait(left))
}

fn age(record: &Value, now: Timestamp) -> SignedDuration {
    let created = parse_time(object::meta(record, "creationTimestamp"));
    created.map_or(SignedDuration::MAX, |created| now.duration_since(created))
}

fn is_labelled(record: &Value, address: IpAddr) -> bool {
    object::label(record, FAMILY) == Some(family(address)) && object::label(record, MANAGED_BY.0) == Some(MANAGED_BY.1)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ADDRESS: &str = "10.96.0.7";

    fn service(name: &str, address: &str) -> Value {
        let spec = json!({"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address]});
        json!({"metadata": {"namespace": "d", "name": name}, "spec": spec})
    }

    fn record(parent: Value, created: &str) -> Value {
        let labels = json!({FAMILY: "IPv4", MANAGED_BY.0: MANAGED_BY.1});
        json!({"metadata": {"name": ADDRESS, "labels": labels, "creationTimestamp": created},
            "spec": {"parentRef": parent}})
    }

    fn of(name: &str) -> Value {
        record(json!({"resource": "services", "namespace": "d", "name": name}), "2026-01-01T00:00:00Z")
    }

    fn said(plan: &Plan) -> (&'static str, &str) {
        match plan {
            Plan::Keep => ("keep", ""),
            Plan::Wait(_) => ("wait", ""),
            Plan::Tell((reason, ..)) => ("tell", reason),
            Plan::Write(finding) => ("write", finding.as_ref().map_or("", |(reason, ..)| reason)),
            Plan::Delete((reason, ..)) => ("delete", reason),
        }
    }

    #[test]
    fn every_address_of_a_service_has_a_record_that_names_it() {
        let address = ADDRESS.parse().unwrap();
        let check = |is_in_range: bool, record: Option<Value>, named: Option<Value>, expected: (&str, &str)| {
            let plan = plan_held(&service("web", ADDRESS), address, is_in_range, record.as_ref(), named.as_ref());
            assert_eq!(said(&plan), expected, "{record:?} {named:?}");
        };
        check(true, Some(of("web")), Some(service("web", ADDRESS)), ("keep", ""));
        check(false, None, None, ("tell", "ClusterIPOutOfRange"));
        check(true, None, None, ("write", "ClusterIPNotAllocated"));
        let gateway = json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"});
        let gateway = record(gateway, "2026-01-01T00:00:00Z");
        check(true, Some(gateway), None, ("write", "ClusterIPNotAllocated"));
        check(true, Some(of("gone")), None, ("write", "ClusterIPNotAllocated"));
        check(true, Some(of("moved")), Some(service("moved", "10.96.0.8")), ("write", "ClusterIPNotAllocated"));
        check(true, Some(of("other")), Some(service("other", ADDRESS)), ("tell", "ClusterIPAlreadyAllocated"));
        let mut bare = of("web");
        bare["metadata"]["labels"][FAMILY] = json!("IPv6");
        check(true, Some(bare), None, ("write", ""));
    }

    #[test]
    fn texts_are_upstreams() {
        let address = ADDRESS.parse().unwrap();
        let check = |plan: Plan, expected: &str| match plan {
            Plan::Tell((.., text)) | Plan::Write(Some((.., text))) | Plan::Delete((.., text)) => {
                assert_eq!(text, expected);
            }
            plan => panic!("nothing is said: {plan:?}"),
        };
        let web = service("web", ADDRESS);
        check(plan_held(&web, address, true, None, None), "Cluster IP [IPv4]: 10.96.0.7 is not allocated; repairing");
        check(
            plan_held(&web, address, true, Some(&of("gone")), None),
            "the ClusterIP [IPv4]: 10.96.0.7 for Service d/web has a wrong reference; repairing",
        );
        let now = parse_time("2026-01-01T00:02:00Z").unwrap();
        check(
            plan_record(&of("gone"), None, now),
            "IPAddress: 10.96.0.7 for Service d/gone appears to have leaked: cleaning up",
        );
    }

    #[test]
    fn records_that_nobody_has_go() {
        let check = |record: &Value, named: Option<Value>, now: &str, expected: (&str, &str)| {
            let plan = plan_record(record, named.as_ref(), parse_time(now).unwrap());
            assert_eq!(said(&plan), expected, "{record} {named:?} {now}");
        };
        let (soon, later) = ("2026-01-01T00:00:03Z", "2026-01-01T00:02:00Z");
        check(&of("web"), Some(service("web", ADDRESS)), later, ("keep", ""));
        check(&of("web"), None, soon, ("wait", ""));
        check(&of("web"), None, later, ("delete", "IPAddressNotAllocated"));
        let moved = || Some(service("web", "10.96.0.8"));
        check(&of("web"), moved(), soon, ("wait", ""));
        check(&of("web"), moved(), later, ("delete", "IPAddressWrongReference"));
        let mut external = service("web", "");
        external["spec"]["type"] = json!("ExternalName");
        check(&of("web"), Some(external.clone()), "2026-01-01T00:00:30Z", ("wait", ""));
        check(&of("web"), Some(external), later, ("delete", "IPAddressWrongReference"));
        let changed = record(json!({"resource": "gateways", "name": "g"}), "2026-01-01T00:00:00Z");
        check(&changed, None, soon, ("delete", "IPAddressNotAllocated"));
        // Of others' records nobody says anything.
        let mut foreign = changed;
        foreign["metadata"]["labels"] = json!({});
        check(&foreign, None, later, ("keep", ""));
    }
}
