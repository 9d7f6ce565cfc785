//! CSIDrivers and CSINodes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::{IMMUTABLE, Path};
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name, or_none};
use crate::value::{at, child, fill, int, is_set, items, set, text, texts, truth};
use crate::workload::SPEC;

/// Of csidrivers.
pub(super) struct CsiDriver;

/// Of csinodes.
pub(super) struct CsiNode;

const DRIVER_COLUMNS: &[Column] = &[
    NAME,
    column("AttachRequired", "boolean", "Whether volumes are attached to nodes"),
    column("PodInfoOnMount", "boolean", "Whether the driver is told of the pod"),
    column("StorageCapacity", "boolean", "Whether the scheduler looks at its capacity"),
    column("TokenRequests", "string", "Audiences of the tokens that it gets"),
    column("RequiresRepublish", "boolean", "Whether volumes are published again and again"),
    column("Modes", "string", "Volumes that it serves"),
    AGE,
];

const NODE_COLUMNS: &[Column] = &[NAME, column("Drivers", "integer", "Drivers on the node"), AGE];

impl Strategy for CsiDriver {
    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        fill(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            fill(spec, field, false);
        }
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if !is_set(spec, &["volumeLifecycleModes"]) {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let policy = text(object, &["spec", "fsGroupPolicy"]);
        SPEC.child("fsGroupPolicy").required_one_of(errors, policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        for mode in texts(object, &["spec", "volumeLifecycleModes"]) {
            SPEC.child("volumeLifecycleModes").one_of(errors, mode, &["Persistent", "Ephemeral"]);
        }
        token_requests(object, errors);
        let period = int(object, &["spec", "nodeAllocatableUpdatePeriodSeconds"]);
        if let Some(period) = period.filter(|period| *period < 10) {
            let path = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
            path.invalid(errors, period, "must be greater than or equal to 10 seconds");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        for (field, reported) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            SPEC.child(reported).immutable(errors, at(new, &["spec", field]), at(old, &["spec", field]));
        }
    }

    fn columns(&self) -> &[Column] {
        DRIVER_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let attach = at(spec, &["attachRequired"]).and_then(Value::as_bool).unwrap_or(true);
        let tokens = match at(spec, &["tokenRequests"]) {
            None => "<unset>".to_owned(),
            Some(_) => {
                let audiences: Vec<&str> =
                    items(spec, &["tokenRequests"]).iter().map(|request| text(request, &["audience"])).collect();
                audiences.join(",")
            }
        };
        let modes: Vec<&str> = texts(spec, &["volumeLifecycleModes"]).collect();
        vec![
            name(object),
            Value::from(attach),
            Value::from(truth(spec, &["podInfoOnMount"])),
            Value::from(truth(spec, &["storageCapacity"])),
            Value::from(tokens),
            Value::from(truth(spec, &["requiresRepublish"])),
            Value::from(or_none(modes.join(","))),
            age(object, now),
        ]
    }
}

/// What is wrong with the name of a driver.
pub(crate) fn driver_name(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        path.required(errors, "");
    }
    if name.len() > 63 {
        path.too_long(errors, 63);
    }
    path.check(errors, name, formats::subdomain(&name.to_lowercase()));
}

fn token_requests(object: &Value, errors: &mut Vec<FieldError>) {
    let list = SPEC.child("tokenRequests");
    let requests = items(object, &["spec", "tokenRequests"]);
    for (index, request) in requests.iter().enumerate() {
        let path = list.index(index);
        let audience = text(request, &["audience"]);
        if requests[..index].iter().any(|earlier| text(earlier, &["audience"]) == audience) {
            path.child("audience").duplicate(errors, audience);
            continue;
        }
        match int(request, &["expirationSeconds"]) {
            Some(seconds) if seconds < 600 => {
                let why = "may not specify a duration less than 10 minutes";
                path.child("expirationSeconds").invalid(errors, seconds, why);
            }
            Some(seconds) if seconds > 1 << 32 => {
                let why = "may not specify a duration larger than 2^32 seconds";
                path.child("expirationSeconds").invalid(errors, seconds, why);
            }
            _ => {}
        }
    }
}

impl Strategy for CsiNode {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            fill(spec, "drivers", Value::Null);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let list = SPEC.child("drivers");
        let drivers = items(object, &["spec", "drivers"]);
        for (index, driver) in drivers.iter().enumerate() {
            let path = list.index(index);
            let own = text(driver, &["name"]);
            driver_name(&path.child("name"), own, errors);
            match text(driver, &["nodeID"]) {
                "" => path.child("nodeID").required(errors, ""),
                id if id.len() > 256 => path.child("nodeID").invalid(errors, id, "must be 256 characters or less"),
                _ => {}
            }
            if let Some(count) = int(driver, &["allocatable", "count"]) {
                path.child("allocatable").child("count").not_negative(errors, count);
            }
            if drivers[..index].iter().any(|earlier| text(earlier, &["name"]) == own) {
                path.child("name").duplicate(errors, own);
            }
            let keys: Vec<&str> = texts(driver, &["topologyKeys"]).collect();
            for (number, key) in keys.iter().enumerate() {
                if key.is_empty() {
                    path.required(errors, "");
                }
                if keys[..number].contains(key) {
                    path.duplicate(errors, *key);
                }
                path.check(errors, key, formats::qualified_name(key));
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        // How much the node takes may change; who the driver is may not.
        let identity = |driver: &Value| {
            let mut driver = driver.clone();
            crate::value::remove(&mut driver, "allocatable");
            driver
        };
        for driver in items(new, &["spec", "drivers"]) {
            let same = |other: &&Value| text(other, &["name"]) == text(driver, &["name"]);
            let before = items(old, &["spec", "drivers"]).iter().find(same);
            if before.is_some_and(|before| identity(before) != identity(driver)) {
                SPEC.child("drivers").invalid(errors, driver.clone(), IMMUTABLE);
            }
        }
    }

    fn columns(&self) -> &[Column] {
        NODE_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(items(object, &["spec", "drivers"]).len()), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts_of(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn drivers_are_defaulted_and_checked() {
        let mut driver = json!({"metadata": {"name": "d.io"}, "spec": {}});
        CsiDriver.default(&mut driver);
        assert_eq!(
            driver["spec"],
            json!({"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
                   "requiresRepublish": false, "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
                   "volumeLifecycleModes": ["Persistent"]})
        );
        let check = |extra: Value, expected: &[&str]| {
            let mut driver = driver.clone();
            driver["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let mut errors = Vec::new();
            CsiDriver.validate_create(&driver, &mut errors);
            assert_eq!(texts_of(&errors), expected);
        };
        check(json!({}), &[]);
        let requests = json!([{"audience": "a", "expirationSeconds": 60}, {"audience": "a"}]);
        check(
            json!({"tokenRequests": requests}),
            &[
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ],
        );
        check(
            json!({"nodeAllocatableUpdatePeriodSeconds": 5}),
            &["spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10 seconds"],
        );
        check(
            json!({"volumeLifecycleModes": ["Never"]}),
            &[
                "spec.volumeLifecycleModes: Unsupported value: \"Never\": supported values: \"Persistent\", \"Ephemeral\"",
            ],
        );
    }

    #[test]
    fn drivers_of_a_node_keep_who_they_are() {
        let node = |drivers: Value| json!({"spec": {"drivers": drivers}});
        let driver = json!({"name": "d.io", "nodeID": "n", "topologyKeys": ["zone"]});
        let check = |new: Value, old: &Value, expected: &[&str]| {
            let mut errors = Vec::new();
            CsiNode.validate_update(&new, old, &mut errors);
            assert_eq!(texts_of(&errors), expected);
        };
        let old = node(json!([driver]));
        let mut limited = driver.clone();
        limited["allocatable"] = json!({"count": 3});
        check(node(json!([limited])), &old, &[]);
        limited["allocatable"] = json!({"count": -1});
        let negative = "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0";
        check(node(json!([limited])), &old, &[negative]);
        let twice = node(json!([driver, driver]));
        check(twice, &old, &["spec.drivers[1].name: Duplicate value: \"d.io\""]);
        let mut moved = driver.clone();
        moved["nodeID"] = json!("m");
        let mut errors = Vec::new();
        CsiNode.validate_update(&node(json!([moved])), &old, &mut errors);
        assert!(texts_of(&errors)[0].starts_with("spec.drivers: Invalid value: "), "{errors:?}");
        let odd = json!({"name": "d.io", "nodeID": "", "topologyKeys": ["a", "a", "-"]});
        let mut errors = Vec::new();
        CsiNode.validate_create(&node(json!([odd])), &mut errors);
        let texts = texts_of(&errors);
        assert_eq!(texts[..2], ["spec.drivers[0].nodeID: Required value", "spec.drivers[0]: Duplicate value: \"a\""]);
        assert!(texts[2].starts_with("spec.drivers[0]: Invalid value: \"-\": name part must consist of"), "{texts:?}");
        let long = json!({"name": "d.io", "nodeID": "n".repeat(257)});
        let mut errors = Vec::new();
        CsiNode.validate_create(&node(json!([long])), &mut errors);
        assert!(texts_of(&errors)[0].ends_with(": must be 256 characters or less"), "{errors:?}");
    }
}
