//! Which IP families a Service has: what was asked for, what its addresses say, what it had before, and what the cluster
//! serves. Pure; the addresses are taken afterwards (`service_allocation.rs`).
//!
//! Invariant: a Service never gains or loses a family without being told to by its policy or its fields, also where the
//! cluster's families change.

use kedge_meta::{FieldError, FieldPath};
use serde_json::{Value, json};

use crate::object;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in policy and families; gives back whether each family is IPv6, the primary one first.
///
/// `served` are the families that the cluster has ranges of, in the same form.
pub(super) fn plan_families(
    service: &mut Value,
    old: Option<&Value>,
    served: &[bool],
) -> Result<Vec<bool>, Vec<FieldError>> {
    let old = old.filter(|old| type_of(old) != "ExternalName");
    if let Some(old) = old.filter(|old| is_left_alone(service, old)) {
        return Ok(families_of(old));
    }
    let policy = policy(service, old);
    set(service, "ipFamilyPolicy", policy.as_str());
    if let Some(old) = old {
        match policy == SINGLE {
            true => give_up_second(service, old),
            false => refuse_silent_loss(service, old)?,
        }
    }
    refuse_two_of_one(service, &policy)?;
    let mut families = infer(service, served)?;
    let first = || served.first().copied().unwrap_or(false);
    // Nobody hands out its addresses: such a Service may have families that the cluster has not.
    let is_free = is_headless(service) && !has_selector(service);
    if !is_free {
        refuse_unserved(&families, &policy, served)?;
    }
    if families.is_empty() {
        families.push(first());
    }
    if policy != SINGLE && families.len() == 1 && (is_free || served.len() == 2) {
        families.push(!families[0]);
    }
    set(service, "ipFamilies", families.iter().map(|ipv6| name(*ipv6)).collect::<Vec<_>>());
    Ok(families)
}

fn type_of(service: &Value) -> &str {
    match object::text(service, &["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn name(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn set(service: &mut Value, field: &str, value: impl Into<Value>) {
    object::child_mut(service, "spec").insert(field.to_owned(), value.into());
}

fn asked_policy(service: &Value) -> Option<&str> {
    Some(object::text(service, &["spec", "ipFamilyPolicy"])).filter(|policy| !policy.is_empty())
}

fn addresses(service: &Value) -> &[Value] {
    object::list(service, &["spec", "clusterIPs"])
}

fn families_of(service: &Value) -> Vec<bool> {
    object::list(service, &["spec", "ipFamilies"]).iter().map(|family| family == "IPv6").collect()
}

fn is_headless(service: &Value) -> bool {
    addresses(service).first().is_some_and(|address| address == "None")
}

fn has_selector(service: &Value) -> bool {
    object::at(service, &["spec", "selector"]).and_then(Value::as_object).is_some_and(|selector| !selector.is_empty())
}

/// A Service that takes what there is stays as it is, until its own fields change.
fn is_left_alone(service: &Value, old: &Value) -> bool {
    let prefers = |service: &Value| asked_policy(service) == Some(PREFER);
    let same_type = type_of(service) == type_of(old);
    let is_complete = !addresses(old).is_empty() && !families_of(old).is_empty();
    let same_fields = addresses(service) == addresses(old) && families_of(service) == families_of(old);
    same_type && prefers(service) && prefers(old) && is_complete && same_fields
}

fn policy(service: &Value, old: Option<&Value>) -> String {
    let kept = || old.and_then(asked_policy);
    let usual = match is_headless(service) && !has_selector(service) {
        true => REQUIRE,
        false => SINGLE,
    };
    asked_policy(service).or_else(kept).unwrap_or(usual).to_owned()
}

fn error(field: &str, value: &Value, why: &str) -> FieldError {
    FieldError::invalid(&FieldPath::new("spec").child(field), value, why)
}

/// The second address and family go by the policy alone, where the client sent them back as they were.
fn give_up_second(service: &mut Value, old: &Value) {
    for field in ["clusterIPs", "ipFamilies"] {
        let listed = object::list(service, &["spec", field]);
        if listed.len() > 1 && listed == object::list(old, &["spec", field]) {
            let first = listed[..1].to_vec();
            set(service, field, first);
        }
    }
}

fn refuse_silent_loss(service: &Value, old: &Value) -> Result<(), Vec<FieldError>> {
    let policy = json!(asked_policy(service));
    let is_less = |field: &str| {
        let (now, before) = (object::list(service, &["spec", field]).len(), object::list(old, &["spec", field]).len());
        now > 0 && now < before
    };
    let mut errors = Vec::new();
    // To and from a headless Service, addresses come and go as a whole.
    if is_less("clusterIPs") && !is_headless(service) {
        errors.push(error("ipFamilyPolicy", &policy, "must be 'SingleStack' to release the secondary cluster IP"));
    }
    if is_less("ipFamilies") {
        errors.push(error("ipFamilyPolicy", &policy, "must be 'SingleStack' to release the secondary IP family"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn refuse_two_of_one(service: &Value, policy: &str) -> Result<(), Vec<FieldError>> {
    let both = |field: &str| object::list(service, &["spec", field]).len() == 2;
    let mut errors = Vec::new();
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if policy == SINGLE && both(field) {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(error("ipFamilyPolicy", &json!(policy), &why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The families that were named, and those that the addresses have beyond them.
fn infer(service: &Value, served: &[bool]) -> Result<Vec<bool>, Vec<FieldError>> {
    let mut families = families_of(service);
    let mut errors = Vec::new();
    for (index, address) in addresses(service).iter().enumerate().skip(families.len()) {
        let Some(text) = address.as_str().filter(|text| *text != "None") else { break };
        let ipv6 = text.contains(':');
        match served.contains(&ipv6) {
            true => families.push(ipv6),
            false => {
                let path = FieldPath::new("spec").child("clusterIPs").index(index);
                let why = format!("{} is not configured on this cluster", name(ipv6));
                errors.push(FieldError::invalid(&path, &json!(addresses(service)), &why));
            }
        }
    }
    if errors.is_empty() { Ok(families) } else { Err(errors) }
}

fn refuse_unserved(families: &[bool], policy: &str, served: &[bool]) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    if policy == REQUIRE && served.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(error("ipFamilyPolicy", &json!(policy), why));
    }
    for (index, ipv6) in families.iter().enumerate().filter(|(_, ipv6)| !served.contains(ipv6)) {
        let path = FieldPath::new("spec").child("ipFamilies").index(index);
        errors.push(FieldError::invalid(&path, &json!(name(*ipv6)), "not configured on this cluster"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: &[bool] = &[false];
    const BOTH: &[bool] = &[false, true];
    const SIX_FIRST: &[bool] = &[true, false];

    fn plan(spec: Value, old: Option<Value>, served: &[bool]) -> Result<(String, String), String> {
        let mut service = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        match plan_families(&mut service, old.as_ref(), served) {
            Ok(families) => {
                let families: Vec<&str> = families.iter().map(|ipv6| name(*ipv6)).collect();
                Ok((object::text(&service, &["spec", "ipFamilyPolicy"]).to_owned(), families.join(",")))
            }
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn new_services_get_families_by_policy_and_fields() {
        let check = |spec: Value, served: &[bool], policy: &str, families: &str| {
            assert_eq!(plan(spec.clone(), None, served), Ok((policy.to_owned(), families.to_owned())), "{spec}");
        };
        check(json!({}), FOUR, SINGLE, "IPv4");
        check(json!({}), BOTH, SINGLE, "IPv4");
        check(json!({}), SIX_FIRST, SINGLE, "IPv6");
        check(json!({"ipFamilies": ["IPv6"]}), BOTH, SINGLE, "IPv6");
        check(json!({"clusterIPs": ["fd00::1"]}), BOTH, SINGLE, "IPv6");
        check(json!({"ipFamilyPolicy": PREFER}), FOUR, PREFER, "IPv4");
        check(json!({"ipFamilyPolicy": PREFER}), BOTH, PREFER, "IPv4,IPv6");
        check(json!({"ipFamilyPolicy": PREFER}), SIX_FIRST, PREFER, "IPv6,IPv4");
        check(json!({"ipFamilyPolicy": REQUIRE, "ipFamilies": ["IPv6"]}), BOTH, REQUIRE, "IPv6,IPv4");
        check(json!({"ipFamilyPolicy": REQUIRE, "clusterIPs": ["fd00::1", "10.0.0.1"]}), BOTH, REQUIRE, "IPv6,IPv4");
        let headless = |more: Value| {
            let mut spec = json!({"clusterIP": "None", "clusterIPs": ["None"]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        check(headless(json!({"selector": {"a": "b"}})), BOTH, SINGLE, "IPv4");
        check(headless(json!({"selector": {"a": "b"}, "ipFamilyPolicy": PREFER})), BOTH, PREFER, "IPv4,IPv6");
        check(headless(json!({})), FOUR, REQUIRE, "IPv4,IPv6");
        check(headless(json!({})), SIX_FIRST, REQUIRE, "IPv6,IPv4");
        check(headless(json!({"ipFamilyPolicy": SINGLE})), BOTH, SINGLE, "IPv4");
        check(headless(json!({"ipFamilyPolicy": SINGLE, "ipFamilies": ["IPv6"]})), FOUR, SINGLE, "IPv6");
    }

    #[test]
    fn what_the_cluster_or_the_policy_lacks_is_refused() {
        let check = |spec: Value, served: &[bool], expected: &str| {
            assert_eq!(plan(spec, None, served), Err(expected.to_owned()));
        };
        check(
            json!({"ipFamilyPolicy": REQUIRE}),
            FOUR,
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        );
        check(
            json!({"ipFamilies": ["IPv6"]}),
            FOUR,
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        );
        check(
            json!({"clusterIPs": ["fd00::1"]}),
            FOUR,
            "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
        );
        check(
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            BOTH,
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
             multiple IP families are specified",
        );
        check(
            json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilyPolicy": SINGLE}),
            BOTH,
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
             multiple cluster IPs are specified",
        );
    }

    #[test]
    fn updates_add_and_remove_the_second_family_when_told_to() {
        let four = || json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": SINGLE});
        let both = |policy: &str| json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy});
        let with = |mut spec: Value, field: &str, value: Value| {
            spec[field] = value;
            spec
        };
        let check = |spec: Value, old: Value, served: &[bool], expected: Result<(&str, &str), &str>| {
            let expected = expected
                .map(|(policy, families)| (policy.to_owned(), families.to_owned()))
                .map_err(|why| format!("spec.ipFamilyPolicy: Invalid value: {why}"));
            assert_eq!(plan(spec, Some(old), served), expected);
        };
        check(with(four(), "ipFamilyPolicy", json!(REQUIRE)), four(), BOTH, Ok((REQUIRE, "IPv4,IPv6")));
        check(with(four(), "ipFamilyPolicy", json!(PREFER)), four(), BOTH, Ok((PREFER, "IPv4,IPv6")));
        check(with(both(PREFER), "ipFamilyPolicy", json!(SINGLE)), both(PREFER), BOTH, Ok((SINGLE, "IPv4")));
        check(both(REQUIRE), both(REQUIRE), BOTH, Ok((REQUIRE, "IPv4,IPv6")));
        check(
            with(both(REQUIRE), "clusterIPs", json!(["10.0.0.1"])),
            both(REQUIRE),
            BOTH,
            Err("\"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP"),
        );
        check(
            with(both(PREFER), "ipFamilies", json!(["IPv4"])),
            both(PREFER),
            BOTH,
            Err("\"PreferDualStack\": must be 'SingleStack' to release the secondary IP family"),
        );
        // The cluster got a second range, or lost it: nothing happens by itself.
        let alone = || json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": PREFER});
        check(alone(), alone(), BOTH, Ok((PREFER, "IPv4")));
        check(both(PREFER), both(PREFER), FOUR, Ok((PREFER, "IPv4,IPv6")));
        let external = json!({"type": "ExternalName"});
        check(json!({"ipFamilyPolicy": PREFER}), external, BOTH, Ok((PREFER, "IPv4,IPv6")));
    }
}
