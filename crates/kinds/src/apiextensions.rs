//! The kinds of `apiextensions.k8s.io`: CustomResourceDefinitions.
//!
//! Not what its schemas may say: that is checked where custom resources are served.

use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{NameRule, Strategy, WriteContext};
use crate::value::{at, child, fill, items, set, text, texts, truth};
use crate::workload::SPEC;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "customresourcedefinitions" => &CustomResourceDefinition,
        _ => &Generic::PLAIN,
    }
}

/// Of customresourcedefinitions.
struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        if let Some(conversion) = child(spec, "conversion") {
            fill(conversion, "strategy", "None");
            if let Some(service) = crate::value::at_mut(conversion, &["webhook", "clientConfig", "service"]) {
                fill(service, "port", 443);
            }
        }
        let kind = text(spec, &["names", "kind"]).to_owned();
        if let (false, Some(names)) = (kind.is_empty(), child(spec, "names")) {
            fill(names, "singular", kind.to_lowercase());
            fill(names, "listKind", format!("{kind}List"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        let stored: Vec<&str> = items(object, &["spec", "versions"])
            .iter()
            .filter(|version| truth(version, &["storage"]))
            .map(|version| text(version, &["name"]))
            .collect();
        let names = json!({"plural": "", "kind": ""});
        let status = json!({"acceptedNames": names, "conditions": null, "storedVersions": stored});
        set(object, "status", status);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        // A version that becomes the stored one is remembered, so that it can't be removed while objects are stored in it.
        let versions = items(new, &["spec", "versions"]);
        let stored = versions.iter().find(|version| truth(version, &["storage"]));
        let Some(name) = stored.map(|version| text(version, &["name"]).to_owned()) else { return };
        let Some(status) = child(new, "status") else { return };
        let mut known = items(status, &["storedVersions"]).to_vec();
        if !known.iter().any(|version| *version == name) {
            known.push(Value::from(name));
            set(status, "storedVersions", known);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
        let own = text(object, &["metadata", "name"]);
        if own != format!("{plural}.{group}") {
            let metadata = Path::root("metadata");
            metadata.child("name").invalid(errors, own, "must be spec.names.plural+\".\"+spec.group");
        }
        if group.is_empty() {
            SPEC.child("group").required(errors, "");
        } else {
            SPEC.child("group").check(errors, group, formats::subdomain(group));
            if !group.contains('.') {
                SPEC.child("group").invalid(errors, group, "should be a domain with at least one dot");
            }
        }
        SPEC.child("scope").required_one_of(errors, text(spec, &["scope"]), &["Cluster", "Namespaced"]);
        versions(items(spec, &["versions"]), errors);
        names(&spec["names"], &SPEC.child("names"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        for (index, version) in items(new, &["status", "storedVersions"]).iter().enumerate() {
            let kept = items(new, &["spec", "versions"]).iter().any(|kept| at(kept, &["name"]) == Some(version));
            if !kept {
                let status = Path::root("status");
                let list = status.child("storedVersions");
                let name = version.as_str().unwrap_or_default();
                let why = format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                     until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                     status.storedVersions"
                );
                list.index(index).invalid(errors, name, &why);
            }
        }
        let established = items(old, &["status", "conditions"])
            .iter()
            .any(|one| text(one, &["type"]) == "Established" && text(one, &["status"]) == "True");
        if established {
            SPEC.child("scope").immutable(errors, at(new, &["spec", "scope"]), at(old, &["spec", "scope"]));
            let names = SPEC.child("names");
            let kind = |object: &'_ Value| at(object, &["spec", "names", "kind"]).cloned();
            names.child("kind").immutable(errors, kind(new).as_ref(), kind(old).as_ref());
        }
        SPEC.child("group").immutable(errors, at(new, &["spec", "group"]), at(old, &["spec", "group"]));
        let plural = |object: &'_ Value| at(object, &["spec", "names", "plural"]).cloned();
        SPEC.child("names").child("plural").immutable(errors, plural(new).as_ref(), plural(old).as_ref());
    }
}

fn versions(versions: &[Value], errors: &mut Vec<FieldError>) {
    let list = SPEC.child("versions");
    let storage = versions.iter().filter(|version| truth(version, &["storage"])).count();
    if storage != 1 {
        list.invalid(errors, versions.to_vec(), "must have exactly one version marked as storage version");
    }
    for (index, version) in versions.iter().enumerate() {
        let path = list.index(index);
        let own = text(version, &["name"]);
        path.child("name").check(errors, own, formats::label_1035(own));
        if versions[..index].iter().any(|earlier| text(earlier, &["name"]) == own) {
            list.invalid(errors, versions.to_vec(), "must contain unique version names");
        }
        if at(version, &["schema", "openAPIV3Schema"]).is_none() {
            let schema = path.child("schema");
            schema.child("openAPIV3Schema").required(errors, "");
        }
    }
}

fn names(names: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (field, required) in [("plural", true), ("singular", false), ("kind", true), ("listKind", false)] {
        match text(names, &[field]) {
            "" if required => path.child(field).required(errors, ""),
            "" => {}
            name => {
                let wrong = formats::label_1035(&name.to_lowercase());
                let mixed =
                    if field.ends_with("ind") { "may have mixed case, but should otherwise match: " } else { "" };
                if !wrong.is_empty() {
                    path.child(field).invalid(errors, name, &format!("{mixed}{}", wrong.join(",")));
                }
            }
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in texts(names, &[field]).enumerate() {
            let wrong = formats::label_1035(name);
            if !wrong.is_empty() {
                path.child(field).index(index).invalid(errors, name, &wrong.join(","));
            }
        }
    }
    let (kind, list) = (text(names, &["kind"]), text(names, &["listKind"]));
    if !kind.is_empty() && kind == list {
        path.child("listKind").invalid(errors, list, "kind and listKind may not be the same");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_defaulted_and_checked() {
        let mut object = json!({"metadata": {"name": "tools.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced",
            "names": {"plural": "tools", "kind": "Tool"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        CustomResourceDefinition.default(&mut object);
        assert_eq!(
            object["spec"]["names"],
            json!({"plural": "tools", "kind": "Tool", "singular": "tool", "listKind": "ToolList"})
        );
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        let mut errors = Vec::new();
        CustomResourceDefinition.validate_create(&object, &mut errors);
        assert_eq!(errors, []);
        object["metadata"]["name"] = json!("tools");
        object["spec"]["versions"][0]["storage"] = json!(false);
        CustomResourceDefinition.validate_create(&object, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "metadata.name: Invalid value: \"tools\": must be spec.names.plural+\".\"+spec.group");
        assert!(texts[1].ends_with("must have exactly one version marked as storage version"), "{texts:?}");
    }
}
