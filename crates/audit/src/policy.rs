//! Which requests are recorded, and how much of them: `audit.k8s.io/v1` Policy. Pure.
//!
//! Invariant: the first rule that fits decides; what no rule fits is not recorded.

use kedge_auth::{Attributes, ResourceAttributes};
use serde::{Deserialize, Serialize};

mod read;

pub use read::PolicyError;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, and what came of it.
    Metadata,
    /// The object that was sent, too.
    Request,
    /// The object that was answered, too.
    RequestResponse,
}

impl Level {
    /// Upstream's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// The head of a long answer is out.
    ResponseStarted,
    /// The answer is out.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

impl Stage {
    /// Upstream's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages(u8);

impl Stages {
    /// Whether a stage is among them.
    pub fn contains(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Stage> for Stages {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Self {
        Self(stages.into_iter().fold(0, |bits, stage| bits | (1 << stage as u8)))
    }
}

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How much is recorded.
    pub level: Level,
    /// When nothing is recorded.
    pub omit_stages: Stages,
    /// Whether `metadata.managedFields` are left out of objects.
    pub omit_managed_fields: bool,
}

/// The rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Stages,
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    non_resource_urls: Vec<String>,
    omit_stages: Stages,
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// What it says of a request. Somebody who could not be authenticated is a user without name and groups.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        match self.rules.iter().find(|rule| rule.fits(attributes)) {
            Some(rule) => Decision {
                level: rule.level,
                omit_stages: rule.omit_stages,
                omit_managed_fields: rule.omit_managed_fields,
            },
            None => Decision {
                level: Level::None,
                omit_stages: self.omit_stages,
                omit_managed_fields: self.omit_managed_fields,
            },
        }
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|own| own == text)
}

impl Rule {
    fn fits(&self, attributes: &Attributes<'_>) -> bool {
        let Attributes { user, verb, resource, path } = attributes;
        let is_for_user = self.users.is_empty() || has(&self.users, &user.username);
        let is_for_group = self.user_groups.is_empty() || user.groups.iter().any(|group| has(&self.user_groups, group));
        if !is_for_user || !is_for_group || !(self.verbs.is_empty() || has(&self.verbs, verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return resource.as_ref().is_some_and(|resource| self.fits_resource(resource));
        }
        self.non_resource_urls.is_empty()
            || (resource.is_none() && self.non_resource_urls.iter().any(|url| fits_path(url, path)))
    }

    fn fits_resource(&self, resource: &ResourceAttributes<'_>) -> bool {
        let is_in_namespace = self.namespaces.is_empty() || has(&self.namespaces, resource.namespace);
        is_in_namespace && (self.resources.is_empty() || self.resources.iter().any(|own| own.fit(resource)))
    }
}

impl GroupResources {
    fn fit(&self, asked: &ResourceAttributes<'_>) -> bool {
        if self.group != asked.group && self.group != "*" {
            return false;
        }
        let is_named = self.resource_names.is_empty() || has(&self.resource_names, asked.name);
        self.resources.is_empty() || (is_named && self.resources.iter().any(|own| fits_word(own, asked)))
    }
}

/// Whether `pods`, `pods/log`, `pods/*`, `*/status` or `*` means a resource. `pods/*` means the pods themselves, too.
fn fits_word(word: &str, asked: &ResourceAttributes<'_>) -> bool {
    let (resource, subresource) = match word.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource)),
        None => (word, None),
    };
    match (resource, subresource) {
        ("*", None) => true,
        (_, None) => resource == asked.resource && asked.subresource.is_empty(),
        (_, Some("*")) if resource == asked.resource => true,
        ("*", Some(subresource)) => !asked.subresource.is_empty() && subresource == asked.subresource,
        (_, Some(subresource)) => resource == asked.resource && subresource == asked.subresource,
    }
}

fn fits_path(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use kedge_meta::UserInfo;

    use super::*;

    const RULES: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, userGroups: ["system:nodes"], nonResourceURLs: ["/api*", /version]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [controller-leader]}], namespaces: [kube-system]}
- {level: Metadata, omitManagedFields: false, omitStages: [Panic], resources: [{resources: [secrets, "pods/log", "*/status"]}]}
- {level: RequestResponse, resources: [{group: "*", resources: ["deployments/*"]}, {group: batch}]}
- {level: Metadata, namespaces: [""]}
- {level: Request, nonResourceURLs: ["*"], verbs: [post]}
"#;

    fn check(user: &UserInfo, verb: &str, path: &str, resource: Option<[&str; 5]>, expected: Level) {
        let policy = Policy::read(RULES).unwrap();
        let resource = resource.map(|[group, resource, subresource, namespace, name]| ResourceAttributes {
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..ResourceAttributes::default()
        });
        let decision = policy.decide(&Attributes { user, verb, resource, path });
        assert_eq!(decision.level, expected, "{verb} {path} {resource:?}");
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let proxy = UserInfo::authenticated("system:kube-proxy", []);
        let node = UserInfo::authenticated("system:node:a", ["system:nodes"]);
        let jane = UserInfo::authenticated("jane", []);
        let nobody = UserInfo::default();
        let of = |user, verb, resource, expected| check(user, verb, "", Some(resource), expected);
        of(&proxy, "watch", ["", "services", "", "", ""], Level::None);
        of(&proxy, "list", ["", "services", "", "a", ""], Level::None);
        of(&jane, "watch", ["", "services", "", "", ""], Level::Metadata);
        of(&jane, "update", ["", "configmaps", "", "kube-system", "controller-leader"], Level::Request);
        of(&jane, "update", ["", "configmaps", "", "kube-system", "other"], Level::None);
        of(&jane, "get", ["", "pods", "log", "a", "b"], Level::Metadata);
        of(&jane, "get", ["", "pods", "", "a", "b"], Level::None);
        of(&jane, "patch", ["", "services", "status", "a", "b"], Level::Metadata);
        of(&jane, "patch", ["apps", "deployments", "", "a", "b"], Level::RequestResponse);
        of(&jane, "patch", ["apps", "deployments", "scale", "a", "b"], Level::RequestResponse);
        of(&jane, "patch", ["apps", "replicasets", "scale", "a", "b"], Level::None);
        of(&jane, "create", ["batch", "jobs", "", "a", ""], Level::RequestResponse);
        of(&nobody, "get", ["", "nodes", "", "", "n"], Level::Metadata);
        check(&node, "get", "/api/v1", None, Level::None);
        check(&node, "get", "/version", None, Level::None);
        check(&jane, "get", "/version", None, Level::None);
        check(&jane, "post", "/version", None, Level::Request);
    }

    #[test]
    fn stages_add_up_and_managed_fields_are_the_rules_own() {
        let policy = Policy::read(RULES).unwrap();
        let user = UserInfo::authenticated("jane", []);
        let resource =
            ResourceAttributes { resource: "secrets", namespace: "a", name: "b", ..ResourceAttributes::default() };
        let secret = policy.decide(&Attributes { user: &user, verb: "get", resource: Some(resource), path: "" });
        assert!(!secret.omit_managed_fields);
        let omitted = |decision: Decision| {
            [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic]
                .map(|stage| decision.omit_stages.contains(stage))
        };
        assert_eq!(omitted(secret), [true, false, false, true]);
        let other = policy.decide(&Attributes { user: &user, verb: "post", resource: None, path: "/" });
        assert_eq!((omitted(other), other.omit_managed_fields), ([true, false, false, false], true));
    }
}
