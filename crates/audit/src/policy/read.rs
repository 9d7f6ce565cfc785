//! Policy files: read, and refused where upstream refuses them.
//!
//! Fields that nobody knows are told and ignored, as upstream does, since a cluster has to start with the file that it
//! has; everything that is known must make sense.

use std::path::Path;

use kedge_meta::{FieldError, FieldPath};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GroupResources, Level, Policy, Rule, Stage, Stages};

const API_VERSION: &str = "audit.k8s.io/v1";
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// Why a policy file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It can't be read.
    #[error("failed to read file path {path:?}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML, or not of the right shape.
    #[error("failed decoding: {0}")]
    Decoding(String),
    /// It is something else.
    #[error("unknown group version field {0} in policy")]
    Kind(String),
    /// Fields are wrong.
    #[error("{0}")]
    Invalid(String),
    /// It says nothing.
    #[error("loaded illegal policy with 0 rules")]
    Empty,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    rules: Vec<FileRule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileRule {
    level: String,
    users: Option<Vec<String>>,
    user_groups: Option<Vec<String>>,
    verbs: Option<Vec<String>>,
    resources: Option<Vec<FileResources>>,
    namespaces: Option<Vec<String>>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Option<Vec<String>>,
    omit_stages: Option<Vec<String>>,
    omit_managed_fields: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileResources {
    group: String,
    resources: Option<Vec<String>>,
    resource_names: Option<Vec<String>>,
}

impl Policy {
    /// Reads a policy file.
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path);
        Self::read(&text.map_err(|source| PolicyError::File { path: path.to_owned(), source })?)
    }

    /// Reads a policy, YAML or JSON.
    pub fn read(text: &str) -> Result<Self, PolicyError> {
        let decoding = |error: &dyn std::fmt::Display| PolicyError::Decoding(error.to_string());
        let document: Value = serde_yaml::from_str(text).map_err(|error| decoding(&error))?;
        let word = |name: &str| document[name].as_str().unwrap_or_default();
        if word("apiVersion") != API_VERSION || word("kind") != "Policy" {
            return Err(PolicyError::Kind(format!("{}, Kind={}", word("apiVersion"), word("kind"))));
        }
        for field in unknown_fields(&document) {
            tracing::warn!(field, "the audit policy has a field that nobody knows; it has no effect");
        }
        let file: File = serde_json::from_value(document).map_err(|error| decoding(&error))?;
        let errors = check(&file);
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(PolicyError::Invalid(match texts.as_slice() {
                [text] => text.clone(),
                _ => format!("[{}]", texts.join(", ")),
            }));
        }
        if file.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        let omit_stages = stages(&file.omit_stages);
        let rules = file.rules.into_iter().map(|rule| rule.rule(omit_stages, file.omit_managed_fields)).collect();
        Ok(Self { rules, omit_stages, omit_managed_fields: file.omit_managed_fields })
    }
}

impl FileRule {
    fn rule(self, omit_stages: Stages, omit_managed_fields: bool) -> Rule {
        let resources = self.resources.unwrap_or_default().into_iter().map(|own| GroupResources {
            group: own.group,
            resources: own.resources.unwrap_or_default(),
            resource_names: own.resource_names.unwrap_or_default(),
        });
        Rule {
            level: level(&self.level).unwrap_or(Level::None),
            users: self.users.unwrap_or_default(),
            user_groups: self.user_groups.unwrap_or_default(),
            verbs: self.verbs.unwrap_or_default(),
            resources: resources.collect(),
            namespaces: self.namespaces.unwrap_or_default(),
            non_resource_urls: self.non_resource_urls.unwrap_or_default(),
            omit_stages: omit_stages.union(stages(&self.omit_stages.unwrap_or_default())),
            omit_managed_fields: self.omit_managed_fields.unwrap_or(omit_managed_fields),
        }
    }
}

fn level(word: &str) -> Option<Level> {
    serde_json::from_value(json!(word)).ok()
}

fn stages(words: &[String]) -> Stages {
    words.iter().filter_map(|word| serde_json::from_value::<Stage>(json!(word)).ok()).collect()
}

fn check(file: &File) -> Vec<FieldError> {
    let mut errors = check_stages(&file.omit_stages, &FieldPath::new("omitStages"));
    for (index, rule) in file.rules.iter().enumerate() {
        let path = FieldPath::new("rules").index(index);
        match rule.level.as_str() {
            "" => errors.push(FieldError::required(&path.child("level"), "")),
            word if level(word).is_none() => {
                errors.push(FieldError::not_supported(&path.child("level"), &json!(word), &LEVELS));
            }
            _ => {}
        }
        let urls = rule.non_resource_urls.as_deref().unwrap_or_default();
        errors.extend(check_urls(urls, &path.child("nonResourceURLs")));
        let resources = rule.resources.as_deref().unwrap_or_default();
        errors.extend(resources.iter().flat_map(|own| check_resources(own, &path.child("resources"))));
        errors.extend(check_stages(rule.omit_stages.as_deref().unwrap_or_default(), &path.child("omitStages")));
        let is_about_resources = !resources.is_empty() || rule.namespaces.as_ref().is_some_and(|all| !all.is_empty());
        if !urls.is_empty() && is_about_resources {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), &json!(urls), why));
        }
    }
    errors
}

fn check_stages(words: &[String], path: &FieldPath) -> Vec<FieldError> {
    let wrong = words.iter().enumerate().filter(|(_, word)| !STAGES.contains(&word.as_str()));
    let why = format!("allowed stages are {}", STAGES.join(","));
    wrong.map(|(index, word)| FieldError::invalid(&path.index(index), &json!(word), &why)).collect()
}

fn check_urls(urls: &[String], path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut refuse = |why| errors.push(FieldError::invalid(&path.index(index), &json!(url), why));
        if !url.starts_with('/') {
            refuse("non-resource URL rules must begin with a '/' character");
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            refuse("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    errors
}

fn check_resources(own: &FileResources, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !own.group.is_empty() && own.group != "*" {
        let wrong = kedge_meta::formats::subdomain(&own.group);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&path.child("group"), &json!(own.group), &wrong.join(",")));
        }
    }
    let names = own.resource_names.as_deref().unwrap_or_default();
    if !names.is_empty() && own.resources.as_deref().unwrap_or_default().is_empty() {
        let why = "using resourceNames requires at least one resource";
        errors.push(FieldError::invalid(&path.child("resourceNames"), &json!(names), why));
    }
    errors
}

/// The paths of fields that no policy has.
fn unknown_fields(document: &Value) -> Vec<String> {
    const POLICY: &[&str] = &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
    const RULE: &[&str] = &[
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
    ];
    const RESOURCES: &[&str] = &["group", "resources", "resourceNames"];
    let mut unknown = Vec::new();
    let mut look = |value: &Value, known: &[&str], at: &str| {
        let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
        unknown.extend(names.filter(|name| !known.contains(&name.as_str())).map(|name| format!("{at}{name}")));
    };
    look(document, POLICY, "");
    for (index, rule) in document["rules"].as_array().into_iter().flatten().enumerate() {
        look(rule, RULE, &format!("rules[{index}]."));
        for (inner, own) in rule["resources"].as_array().into_iter().flatten().enumerate() {
            look(own, RESOURCES, &format!("rules[{index}].resources[{inner}]."));
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rest: &str, expected: &str) {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rest}");
        let error = Policy::read(&text).map(|_| String::new()).unwrap_or_else(|error| error.to_string());
        assert_eq!(error, expected, "{rest}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check("rules: [{level: None}]", "");
        check("rules: []", "loaded illegal policy with 0 rules");
        check("rules: [{}]", "rules[0].level: Required value");
        check(
            "rules: [{level: Some}]",
            r#"rules[0].level: Unsupported value: "Some": supported values: "Metadata", "None", "Request", "RequestResponse""#,
        );
        check(
            "rules: [{level: None, nonResourceURLs: [api, '/a*b']}]",
            r#"[rules[0].nonResourceURLs[0]: Invalid value: "api": non-resource URL rules must begin with a '/' character, rules[0].nonResourceURLs[1]: Invalid value: "/a*b": non-resource URL wildcards '*' must be the final character of the rule]"#,
        );
        check(
            "rules: [{level: None, namespaces: [a], nonResourceURLs: [/a]}]",
            r#"rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#,
        );
        check(
            "omitStages: [Foo]\nrules: [{level: None}]",
            r#"omitStages[0]: Invalid value: "Foo": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"#,
        );
        check(
            "rules: [{level: None, resources: [{resourceNames: [a]}]}]",
            r#"rules[0].resources.resourceNames: Invalid value: ["a"]: using resourceNames requires at least one resource"#,
        );
        assert_eq!(
            Policy::read("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]")
                .unwrap_err()
                .to_string(),
            "unknown group version field audit.k8s.io/v1beta1, Kind=Policy in policy"
        );
        let refused = Policy::read(
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, resources: [{group: a.io/v1}]}]}",
        );
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with(r#"rules[0].resources.group: Invalid value: "a.io/v1": "#), "{text}");
    }

    #[test]
    fn what_nobody_knows_is_found() {
        let document = json!({"kind": "Policy", "rulez": [], "rules": [{"level": "None", "user": ["a"],
            "resources": [{"group": "", "names": []}]}]});
        assert_eq!(unknown_fields(&document), ["rulez", "rules[0].user", "rules[0].resources[0].names"]);
    }
}
