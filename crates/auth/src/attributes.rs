//! What is asked of the authorizer, and what it answers.

use kedge_meta::{FieldSelector, UserInfo};

/// A request about a resource. That it may be limited to objects with some labels is nothing that any authorizer looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceAttributes<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Object name, or empty.
    pub name: &'a str,
    /// What is asked about is limited to objects with these fields.
    pub fields: Option<&'a FieldSelector>,
}

/// A request: who wants to do what.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// `get`, `list`, `create`, ...; for other paths the HTTP method in lower case.
    pub verb: &'a str,
    /// The resource; absent for other paths.
    pub resource: Option<ResourceAttributes<'a>>,
    /// The path, where no resource is asked for.
    pub path: &'a str,
}

/// The answer. Reasons are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow(String),
    /// Nothing says that it may.
    NoOpinion(String),
    /// It may not, whatever else is said.
    Deny(String),
}

impl Decision {
    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    /// Why, for people; may be empty.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::NoOpinion(reason) | Decision::Deny(reason) => reason,
        }
    }

    /// The same, taken out.
    pub fn into_reason(self) -> String {
        match self {
            Decision::Allow(reason) | Decision::NoOpinion(reason) | Decision::Deny(reason) => reason,
        }
    }
}

impl Attributes<'_> {
    /// Upstream's sentence for a refusal, which follows `... is forbidden: `.
    pub fn denial_text(&self) -> String {
        let (user, verb) = (&self.user.username, self.verb);
        let Some(resource) = &self.resource else {
            return format!("User \"{user}\" cannot {verb} path \"{}\"", self.path);
        };
        let what = match resource.subresource.is_empty() {
            true => resource.resource.to_owned(),
            false => format!("{}/{}", resource.resource, resource.subresource),
        };
        let place = match resource.namespace.is_empty() {
            true => "at the cluster scope".to_owned(),
            false => format!("in the namespace \"{}\"", resource.namespace),
        };
        format!("User \"{user}\" cannot {verb} resource \"{what}\" in API group \"{}\" {place}", resource.group)
    }
}
