//! ServiceCIDRs and IPAddresses: the networks that cluster IPs come from, and the addresses that are taken.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, items, text, texts};
use crate::workload::SPEC;

/// Of servicecidrs.
pub(super) struct ServiceCidr;

/// Of ipaddresses.
pub(super) struct IpAddress;

const CIDR_COLUMNS: &[Column] = &[NAME, column("CIDRs", "string", "Networks that it holds"), AGE];

const ADDRESS_COLUMNS: &[Column] = &[NAME, column("ParentRef", "string", "Object that has the address"), AGE];

const IMMUTABLE: &str = "field is immutable";

impl Strategy for ServiceCidr {
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let path = SPEC.child("cidrs");
        let cidrs = items(object, &["spec", "cidrs"]);
        if cidrs.is_empty() {
            return path.required(errors, "at least one CIDR required");
        }
        if cidrs.len() > 2 {
            let why = "may only hold up to 2 values";
            return path.invalid(errors, cidrs.to_vec(), why);
        }
        let v6 = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
        if cidrs.len() == 2 && v6(&cidrs[0]) == v6(&cidrs[1]) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            path.invalid(errors, cidrs.to_vec(), why);
        }
        for (index, cidr) in texts(object, &["spec", "cidrs"]).enumerate() {
            path.index(index).check(errors, cidr, formats::cidr(cidr));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let path = SPEC.child("cidrs");
        let before: Vec<&str> = texts(old, &["spec", "cidrs"]).collect();
        let after: Vec<&str> = texts(new, &["spec", "cidrs"]).collect();
        if before.len() != after.len() && (before.len(), after.len()) != (1, 2) {
            return path.invalid(errors, after, IMMUTABLE);
        }
        for (index, cidr) in before.iter().zip(&after).enumerate().filter_map(|(i, (a, b))| (a != b).then_some((i, b)))
        {
            path.index(index).invalid(errors, *cidr, IMMUTABLE);
        }
        // One family may become two.
        if before.len() != after.len() {
            self.validate_create(new, errors);
        }
    }

    fn columns(&self) -> &[Column] {
        CIDR_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs: Vec<&str> = texts(object, &["spec", "cidrs"]).collect();
        vec![name(object), Value::from(cidrs.join(",")), age(object, now)]
    }
}

impl Strategy for IpAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let own = text(object, &["metadata", "name"]);
        let metadata = Path::root("metadata");
        match own.parse::<std::net::IpAddr>() {
            Err(_) => metadata.child("name").check(errors, own, formats::ip(own)),
            Ok(parsed) if parsed.to_string() != own => {
                metadata.child("name").invalid(errors, own, "must be a canonical IP address");
            }
            Ok(_) => {}
        }
        let path = SPEC.child("parentRef");
        match at(object, &["spec", "parentRef"]) {
            None => path.required(errors, ""),
            Some(parent) => {
                for field in ["resource", "name"].iter().filter(|field| text(parent, &[field]).is_empty()) {
                    path.child(field).required(errors, "");
                }
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        SPEC.child("parentRef").immutable(errors, at(new, &["spec", "parentRef"]), at(old, &["spec", "parentRef"]));
    }

    fn columns(&self) -> &[Column] {
        ADDRESS_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parent = at(object, &["spec", "parentRef"]).map_or_else(
            || "<none>".to_owned(),
            |parent| {
                let part = |field: &str, before: &str| match text(parent, &[field]) {
                    "" => String::new(),
                    text => format!("{before}{text}"),
                };
                let resource = format!("{}{}", part("resource", ""), part("group", ".")).to_lowercase();
                format!("{resource}{}/{}", part("namespace", "/"), part("name", ""))
            },
        );
        vec![name(object), Value::from(parent), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_family_may_become_two() {
        let check = |before: &[&str], after: &[&str], expected: &[&str]| {
            let range = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
            let mut errors = Vec::new();
            ServiceCidr.validate_update(&range(after), &range(before), &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected, "{before:?} {after:?}");
        };
        let (four, six) = ("10.96.0.0/12", "fd00::/112");
        check(&[four], &[four], &[]);
        check(&[four], &[four, six], &[]);
        check(
            &[four],
            &[four, "10.0.0.0/24"],
            &[
                "spec.cidrs: Invalid value: [\"10.96.0.0/12\",\"10.0.0.0/24\"]: may specify no more than one IP for each IP \
               family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        );
        check(&[four], &[six, four], &["spec.cidrs[0]: Invalid value: \"fd00::/112\": field is immutable"]);
        check(&[four], &[six], &["spec.cidrs[0]: Invalid value: \"fd00::/112\": field is immutable"]);
        check(&[four, six], &[four], &["spec.cidrs: Invalid value: [\"10.96.0.0/12\"]: field is immutable"]);
    }

    #[test]
    fn addresses_are_named_after_themselves() {
        for (own, fine) in [("10.96.0.1", true), ("fd00::1", true), ("FD00::1", false), ("web", false)] {
            let object = json!({"metadata": {"name": own}, "spec": {"parentRef": {
                "resource": "services", "namespace": "default", "name": "web"}}});
            let mut errors = Vec::new();
            IpAddress.validate_create(&object, &mut errors);
            assert_eq!(errors.is_empty(), fine, "{own}: {errors:?}");
            assert_eq!(IpAddress.row(&object, Timestamp::UNIX_EPOCH)[1], "services/default/web");
        }
    }
}
