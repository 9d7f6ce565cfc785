//! CSIDrivers and CSINodes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
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
        let own = text(object, &["metadata", "name"]);
        if own.len() > 63 {
            Path::root("metadata").child("name").too_long(errors, 63);
        }
        let policy = text(object, &["spec", "fsGroupPolicy"]);
        SPEC.child("fsGroupPolicy").required_one_of(errors, policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        for mode in texts(object, &["spec", "volumeLifecycleModes"]) {
            SPEC.child("volumeLifecycleModes").one_of(errors, mode, &["Ephemeral", "Persistent"]);
        }
        for (index, request) in items(object, &["spec", "tokenRequests"]).iter().enumerate() {
            if let Some(seconds) = int(request, &["expirationSeconds"]).filter(|seconds| *seconds < 600) {
                let list = SPEC.child("tokenRequests");
                let why = "may not specify a duration less than 10 minutes";
                list.index(index).child("expirationSeconds").invalid(errors, seconds, why);
            }
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
            match text(driver, &["name"]) {
                "" => path.child("name").required(errors, ""),
                own => {
                    path.child("name").check(errors, own, formats::subdomain(&own.to_lowercase()));
                    if drivers[..index].iter().any(|earlier| text(earlier, &["name"]) == own) {
                        path.child("name").duplicate(errors, own);
                    }
                }
            }
            match text(driver, &["nodeID"]) {
                "" => path.child("nodeID").required(errors, ""),
                id if id.len() > 256 => path.child("nodeID").too_long(errors, 256),
                _ => {}
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
