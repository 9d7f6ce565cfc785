//! What an administrator decides for the whole cluster: levels where labels name none, and whom nothing concerns.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{Level, LevelVersion, Policy, Version};

/// The versions that upstream has had, with the same fields.
const API_VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

/// A PodSecurityConfiguration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// What counts where a namespace has no labels.
    pub defaults: Policy,
    /// Whom nothing concerns.
    pub exemptions: Exemptions,
}

/// Names; whoever has one of them may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Exemptions {
    /// Of users who write pods, or what makes pods.
    pub usernames: Vec<String>,
    /// Of namespaces.
    pub namespaces: Vec<String>,
    /// Of runtime classes of pods.
    pub runtime_classes: Vec<String>,
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

impl Configuration {
    /// Reads and checks a document.
    pub fn read(document: &Value) -> Result<Self, String> {
        let read = Document::deserialize(document).map_err(|error| error.to_string())?;
        if read.kind != "PodSecurityConfiguration" || !API_VERSIONS.contains(&&*read.api_version) {
            return Err(format!("no kind \"{}\" is registered for version \"{}\"", read.kind, read.api_version));
        }
        let mut wrong = Vec::new();
        let given = &read.defaults;
        let mut mode = |name: &str, level: &str, version: &str| {
            let mut note = |path: String, value: &str, why: &str| {
                wrong.push(format!("defaults.{path}: Invalid value: \"{value}\": {why}"));
            };
            let read_level = if level.is_empty() { Ok(Level::default()) } else { Level::parse(level) };
            let read_version = if version.is_empty() { Ok(Version::default()) } else { Version::parse(version) };
            LevelVersion {
                level: read_level.unwrap_or_else(|why| {
                    note(name.to_owned(), level, why);
                    Level::default()
                }),
                version: read_version.unwrap_or_else(|why| {
                    note(format!("{name}-version"), version, why);
                    Version::default()
                }),
            }
        };
        let defaults = Policy {
            enforce: mode("enforce", &given.enforce, &given.enforce_version),
            warn: mode("warn", &given.warn, &given.warn_version),
            audit: mode("audit", &given.audit, &given.audit_version),
        };
        let Exemptions { usernames, namespaces, runtime_classes } = &read.exemptions;
        for (name, list) in [("namespaces", namespaces), ("runtimeClasses", runtime_classes), ("usernames", usernames)]
        {
            check_names(name, list, &mut wrong);
        }
        match wrong.as_slice() {
            [] => Ok(Self { defaults, exemptions: read.exemptions }),
            wrong => Err(wrong.join(", ")),
        }
    }
}

fn check_names(field: &str, names: &[String], wrong: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            wrong.push(format!("exemptions.{field}[{index}]: Invalid value: \"\": must not be empty"));
        } else if !seen.insert(name) {
            wrong.push(format!("exemptions.{field}[{index}]: Duplicate value: \"{name}\""));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_read_and_checked() {
        let read = |defaults: Value, exemptions: Value| {
            Configuration::read(&json!({"apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration", "defaults": defaults, "exemptions": exemptions}))
        };
        let defaults = json!({"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"});
        let good = read(defaults, json!({"namespaces": ["kube-system"], "runtimeClasses": ["kata"]})).unwrap();
        let shown = [good.defaults.enforce, good.defaults.audit, good.defaults.warn].map(|mode| mode.to_string());
        assert_eq!(shown, ["baseline:v1.30", "privileged:latest", "restricted:latest"]);
        assert_eq!(good.exemptions.namespaces, ["kube-system"]);
        let wrong = read(json!({"enforce": "none", "warn-version": "1"}), json!({"usernames": ["a", "a", ""]}));
        assert_eq!(
            wrong.unwrap_err(),
            "defaults.enforce: Invalid value: \"none\": must be one of privileged, baseline, restricted, \
             defaults.warn-version: Invalid value: \"1\": must be \"latest\" or \"v1.x\", \
             exemptions.usernames[1]: Duplicate value: \"a\", \
             exemptions.usernames[2]: Invalid value: \"\": must not be empty"
        );
        assert!(read(json!({"enforced": "baseline"}), json!({})).unwrap_err().contains("unknown field `enforced`"));
        let other = Configuration::read(&json!({"apiVersion": "v1", "kind": "PodSecurityConfiguration"}));
        assert!(other.unwrap_err().contains("is registered for version \"v1\""));
    }
}
