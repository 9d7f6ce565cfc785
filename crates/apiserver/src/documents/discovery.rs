//! Discovery: which groups, versions and resources there are, in the legacy documents and the aggregated one.
//!
//! Written out of the registry, and of what extension API servers said of their resources. Invariant: a document changes only
//! when these do, so its hash is its etag.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use kedge_kinds::Subresource;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use crate::aggregation::Extension;
use crate::body::Body;
use crate::call::Call;
use crate::config::Config;
use crate::core::Core;
use crate::negotiate::{self, Encoding};
use crate::object;
use crate::registry::{Registry, Resource};
use crate::reply::{self, Reply};

/// Groups in the order in which clients resolve ambiguous names; others follow by name.
const GROUP_ORDER: [&str; 22] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// The place of groups that nobody gives one.
const USUAL_PRIORITY: i64 = 1000;

/// Answers `/api...` and `/apis...`; `rest` is what follows.
pub(super) fn answer(core: &Core, call: &Call, root: &str, rest: &str) -> Reply {
    let (registry, extensions) = (core.registry.load(), core.extensions.all());
    let served = Served { registry: &registry, extensions: &extensions };
    if rest.is_empty()
        && let Some(version) = aggregated_version(call)
    {
        return Ok(aggregated(&served, call, root == "api", version));
    }
    let document = match (root, rest.split_once('/').map_or((rest, ""), |(group, version)| (group, version))) {
        ("api", ("", _)) => core_versions(&core.config),
        ("api", (version, "")) => resources(&registry, "", version)?,
        ("apis", ("", _)) => groups(&served),
        ("apis", (name, "")) => group(&served, name).ok_or_else(ApiStatus::no_such_path)?,
        ("apis", (group, version)) => resources(&registry, group, version)?,
        _ => return Err(ApiStatus::no_such_path()),
    };
    Ok(reply::document(StatusCode::OK, call.accepted()?.encoding, &document))
}

fn core_versions(config: &Config) -> Value {
    let address = std::net::SocketAddr::new(config.advertise_address, config.secure_port).to_string();
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

/// What this server answers for, and what others do.
struct Served<'a> {
    registry: &'a Registry,
    extensions: &'a [Arc<Extension>],
}

impl<'a> Served<'a> {
    /// Who else answers for a group in a version.
    fn extension(&self, group: &str, version: &str) -> Option<&'a Extension> {
        let extensions = self.extensions.iter().map(AsRef::as_ref);
        extensions.into_iter().find(|extension| (&*extension.group, &*extension.version) == (group, version))
    }

    /// The named groups in their order, each with its versions, best first.
    fn ordered_groups(&self) -> Vec<(&'a str, Vec<&'a str>)> {
        let mut groups: BTreeMap<&str, Vec<&str>> =
            self.registry.groups().filter(|(name, _)| !name.is_empty()).collect();
        for extension in self.extensions {
            let versions = groups.entry(&extension.group).or_default();
            if !versions.contains(&extension.version.as_str()) {
                versions.push(&extension.version);
            }
        }
        let mut groups: Vec<(&str, Vec<&str>)> = groups.into_iter().collect();
        groups.sort_by_key(|(name, _)| self.place_of_group(name));
        for (name, versions) in &mut groups {
            let priority = |version: &str| self.extension(name, version).map_or(0, |extension| extension.priority.1);
            versions.sort_by_key(|version| std::cmp::Reverse((priority(version), version_rank(version))));
        }
        groups
    }

    /// What is built in has its place; others follow by the places that their servers ask for, and by name.
    fn place_of_group<'b>(&self, name: &'b str) -> (usize, i64, &'b str) {
        let place = GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(GROUP_ORDER.len());
        let of_group = self.extensions.iter().filter(|extension| extension.group == name);
        let priority = of_group.map(|extension| extension.priority.0).max().unwrap_or(USUAL_PRIORITY);
        (place, -priority, name)
    }
}

/// Kubernetes' order of versions: v2 over v1 over v2beta1 over v1beta2 over v1alpha1 over everything else.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..end].parse().ok()?;
        match &rest[end..] {
            "" => Some((3, major, 0)),
            stage if stage.starts_with("beta") => Some((2, major, stage[4..].parse().ok()?)),
            stage if stage.starts_with("alpha") => Some((1, major, stage[5..].parse().ok()?)),
            _ => None,
        }
    };
    parse().unwrap_or((0, 0, 0))
}

fn groups(served: &Served<'_>) -> Value {
    let groups: Vec<Value> =
        served.ordered_groups().iter().map(|(name, versions)| group_fields(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(served: &Served<'_>, name: &str) -> Option<Value> {
    let groups = served.ordered_groups();
    let (name, versions) = groups.iter().find(|(known, _)| *known == name)?;
    let mut document = group_fields(name, versions);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Some(document)
}

fn group_fields(name: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiStatus> {
    if !registry.serves(group, version) {
        return Err(ApiStatus::no_such_path());
    }
    let mut resources: Vec<Value> = Vec::new();
    for resource in registry.in_version(group, version) {
        resources.push(main_fields(resource));
        resources.extend(resource.kind.subresources.iter().map(|sub| sub_fields(resource, sub)));
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    Ok(document)
}

fn main_fields(resource: &Resource) -> Value {
    let kind = &resource.kind;
    let mut fields = json!({"name": kind.resource, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": kind.verbs});
    if !kind.short_names.is_empty() {
        fields["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        fields["categories"] = json!(kind.categories);
    }
    if !kind.storage_version_hash.is_empty() {
        fields["storageVersionHash"] = json!(kind.storage_version_hash);
    }
    fields
}

fn sub_fields(resource: &Resource, sub: &Subresource) -> Value {
    let kind = &resource.kind;
    let mut fields = json!({"name": format!("{}/{}", kind.resource, sub.name), "singularName": "",
        "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs});
    if has_own_group(resource, sub) {
        fields["group"] = json!(sub.group);
        fields["version"] = json!(sub.version);
    }
    fields
}

fn has_own_group(resource: &Resource, sub: &Subresource) -> bool {
    sub.group != resource.kind.group || sub.version != resource.kind.version
}

/// The version of the aggregated document that the client likes best, if any.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    for range in negotiate::accept_ranges(&call.headers) {
        if range.name == "application/json" && range.get("g") == Some("apidiscovery.k8s.io") {
            match (range.get("v"), range.get("as")) {
                (Some("v2"), Some("APIGroupDiscoveryList")) => return Some("v2"),
                (Some("v2beta1"), Some("APIGroupDiscoveryList")) => return Some("v2beta1"),
                _ => {}
            }
        } else if matches!(range.name.as_str(), "application/json" | "*/*" | "application/*" | "application/yaml") {
            return None;
        }
    }
    None
}

fn aggregated(served: &Served<'_>, call: &Call, legacy: bool, version: &str) -> Response<Body> {
    let groups: Vec<(&str, Vec<&str>)> = if legacy { vec![("", vec!["v1"])] } else { served.ordered_groups() };
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_fields(served, name, version)).collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let api_version = format!("apidiscovery.k8s.io/{version}");
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
    let (_, text) = reply::encode(Encoding::Json { pretty: false }, &document);
    let etag = etag(&text);
    let unchanged = call.header(IF_NONE_MATCH.as_str()).split(',').any(|known| known.trim() == etag);
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let content_type = HeaderValue::from_str(&content_type).expect("it is ASCII");
    let mut response = match unchanged {
        true => reply::respond(StatusCode::NOT_MODIFIED, content_type, Body::empty()),
        false => reply::bytes(StatusCode::OK, content_type, text),
    };
    response.headers_mut().insert(ETAG, HeaderValue::from_str(&etag).expect("it is ASCII"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_fields(served: &Served<'_>, group: &str, version: &str) -> Value {
    if let Some(extension) = served.extension(group, version) {
        return extension_fields(extension);
    }
    let resources: Vec<Value> = served.registry.in_version(group, version).map(aggregated_resource).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}

/// The version of another server, out of the list of its resources.
fn extension_fields(extension: &Extension) -> Value {
    let list = extension.resources.as_deref().map(|list| object::list(list, &["resources"])).unwrap_or_default();
    let mut resources: Vec<Value> = Vec::new();
    let fields = |resource: &Value| {
        let text = |field: &str| resource[field].as_str().unwrap_or_default();
        json!({"group": text("group"), "version": text("version"), "kind": text("kind")})
    };
    for resource in list {
        let name = resource["name"].as_str().unwrap_or_default();
        if let Some((parent, name)) = name.split_once('/') {
            let sub = json!({"subresource": name, "responseKind": fields(resource), "verbs": resource["verbs"]});
            if let Some(parent) = resources.iter_mut().find(|known| known["resource"] == parent) {
                let known = object::list(parent, &["subresources"]);
                parent["subresources"] = known.iter().cloned().chain([sub]).collect();
            }
            continue;
        }
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut main = json!({"resource": name, "responseKind": fields(resource), "scope": scope,
            "singularResource": resource["singularName"].as_str().unwrap_or_default(), "verbs": resource["verbs"]});
        for field in ["shortNames", "categories"] {
            object::copy_field(resource, &mut main, field);
        }
        resources.push(main);
    }
    let freshness = if extension.is_available() { "Current" } else { "Stale" };
    json!({"version": extension.version, "freshness": freshness, "resources": resources})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = &resource.kind;
    let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
    let mut fields = json!({"resource": kind.resource, "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": scope, "singularResource": kind.singular, "verbs": kind.verbs});
    if !kind.short_names.is_empty() {
        fields["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        fields["categories"] = json!(kind.categories);
    }
    let sub = |sub: &Subresource| {
        let own = has_own_group(resource, sub);
        let (group, version) = if own { (&*sub.group, &*sub.version) } else { ("", "") };
        json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind},
            "verbs": sub.verbs})
    };
    if !kind.subresources.is_empty() {
        fields["subresources"] = kind.subresources.iter().map(sub).collect();
    }
    fields
}

/// The quoted hash of a document.
pub(super) fn etag(text: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA512, text);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    format!("\"{hex}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions = ["v1alpha1", "v2", "foo", "v1beta2", "v10", "v1", "v2beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }
}
