//! From a CustomResourceDefinition to the kinds that it defines.
//!
//! Names are the accepted ones. Invariant: one kind for each version that is served, all over the same store prefix.

use std::borrow::Cow;
use std::sync::Arc;

use kedge_kinds::{Backing, Kind, StrategyRef, Subresource};
use serde_json::Value;

use crate::conditions::has_condition;
use crate::instances::Instances;
use crate::json::{items, text, texts, truth};
use crate::timing::Timing;
use crate::version::{Version, name};

/// What may be done with a custom resource, in the order in which upstream's discovery has it.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The version in which objects are stored.
pub fn storage_version(definition: &Value) -> &str {
    let versions = items(definition, &["spec", "versions"]);
    versions.iter().find(|version| truth(version, &["storage"])).map_or("", name)
}

/// The kinds of a definition, each with its version; its rules are compiled and evaluated by `timing`.
pub fn kinds(definition: &Value, timing: &Arc<dyn Timing>) -> Vec<(Kind, Arc<Version>)> {
    let is_served = |version: &&Value| truth(version, &["served"]);
    let versions = items(definition, &["spec", "versions"]).iter();
    versions.filter(is_served).map(|version| kind(definition, version, timing)).collect()
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

fn kind(definition: &Value, version: &Value, timing: &Arc<dyn Timing>) -> (Kind, Arc<Version>) {
    let group = text(definition, &["spec", "group"]);
    let names = |field: &str| text(definition, &["status", "acceptedNames", field]);
    let list = |field: &str| texts(definition, &["status", "acceptedNames", field]).map(owned).collect();
    let read = Arc::new(Version::of(definition, version, timing));
    let ending = has_condition(definition, "Terminating");
    let kind = Kind {
        group: owned(group),
        version: owned(name(version)),
        kind: owned(names("kind")),
        list_kind: owned(names("listKind")),
        resource: owned(names("plural")),
        singular: owned(names("singular")),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: text(definition, &["spec", "scope"]) == "Namespaced",
        verbs: VERBS.iter().filter(|verb| !ending || **verb != "create").map(|verb| Cow::Borrowed(*verb)).collect(),
        subresources: subresources(group, names("kind"), version),
        storage_version_hash: Cow::Borrowed(""),
        backing: Backing::Stored,
        storage_api_version: Cow::Owned(format!("{group}/{}", storage_version(definition))),
        storage_prefix: Cow::Owned(format!("/registry/{group}/{}", names("plural"))),
        served_by_default: true,
        strategy: StrategyRef::Shared(Arc::new(Instances::new(definition, version, Arc::clone(&read)))),
    };
    (kind, read)
}

fn subresources(group: &str, kind: &str, version: &Value) -> Vec<Subresource> {
    let subresource = |name: &'static str, group: &str, version: &str, kind: &str| Subresource {
        name: Cow::Borrowed(name),
        group: owned(group),
        version: owned(version),
        kind: owned(kind),
        verbs: ["get", "patch", "update"].map(Cow::Borrowed).into(),
    };
    let mut found = Vec::new();
    if version.pointer("/subresources/status").is_some_and(Value::is_object) {
        found.push(subresource("status", group, name(version), kind));
    }
    if version.pointer("/subresources/scale").is_some_and(Value::is_object) {
        found.push(subresource("scale", "autoscaling", "v1", "Scale"));
    }
    found
}
