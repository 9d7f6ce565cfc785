//! Discovery: which groups, versions and resources there are, in the legacy documents and the aggregated one.
//!
//! Written out of the registry alone. Invariant: a document changes only when the registry does, so its hash is its etag.

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use kedge_kinds::Subresource;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::config::Config;
use crate::core::Core;
use crate::negotiate::{self, Encoding};
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

/// Answers `/api...` and `/apis...`; `rest` is what follows.
pub(super) fn answer(core: &Core, call: &Call, root: &str, rest: &str) -> Reply {
    let registry = core.registry.load();
    if rest.is_empty()
        && let Some(version) = aggregated_version(call)
    {
        return Ok(aggregated(&registry, call, root == "api", version));
    }
    let document = match (root, rest.split_once('/').map_or((rest, ""), |(group, version)| (group, version))) {
        ("api", ("", _)) => core_versions(&core.config),
        ("api", (version, "")) => resources(&registry, "", version)?,
        ("apis", ("", _)) => groups(&registry),
        ("apis", (name, "")) => group(&registry, name).ok_or_else(ApiStatus::no_such_path)?,
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

/// The named groups in their order, each with its versions, best first.
fn ordered_groups(registry: &Registry) -> Vec<(&str, Vec<&str>)> {
    let place = |name: &str| GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(GROUP_ORDER.len());
    let mut groups: Vec<(&str, Vec<&str>)> = registry.groups().filter(|(name, _)| !name.is_empty()).collect();
    groups.sort_by_key(|(name, _)| (place(name), *name));
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
    }
    groups
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

fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        ordered_groups(registry).iter().map(|(name, versions)| group_fields(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = ordered_groups(registry);
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

fn aggregated(registry: &Registry, call: &Call, legacy: bool, version: &str) -> Response<Body> {
    let groups: Vec<(&str, Vec<&str>)> = if legacy { vec![("", vec!["v1"])] } else { ordered_groups(registry) };
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_fields(registry, name, version)).collect();
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

fn aggregated_fields(registry: &Registry, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = registry.in_version(group, version).map(aggregated_resource).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
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
