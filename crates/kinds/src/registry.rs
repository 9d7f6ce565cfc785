//! The list of built-in kinds, put together once out of the generated table and the strategies, and look-ups in it.
//!
//! Custom resources are not here: the API server adds them to a list of its own. The invariant: one entry per group,
//! version and resource, sorted by them.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::generated::served::SERVED;
use crate::generic::Generic;
use crate::kind::{Backing, Kind, StrategyRef, Subresource};
use crate::served::{Served, ServedSubresource};
use crate::strategy::Strategy;

static BUILTINS: LazyLock<Vec<Kind>> = LazyLock::new(|| SERVED.iter().map(kind).collect());

/// Every built-in kind in every version, sorted by group, version and resource.
pub fn builtins() -> &'static [Kind] {
    &BUILTINS
}

/// A built-in kind.
pub fn builtin(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    BUILTINS.iter().find(|known| known.group == group && known.version == version && known.kind == kind)
}

/// A built-in kind by its plural resource name.
pub fn builtin_by_resource(group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
    BUILTINS.iter().find(|known| known.group == group && known.version == version && known.resource == resource)
}

fn kind(served: &Served) -> Kind {
    let (storage_group, storage_version) = storage(served);
    Kind {
        group: Cow::Borrowed(served.group),
        version: Cow::Borrowed(served.version),
        kind: Cow::Borrowed(served.kind),
        list_kind: Cow::Owned(format!("{}List", served.kind)),
        resource: Cow::Borrowed(served.resource),
        singular: Cow::Borrowed(served.singular),
        short_names: borrowed(served.short_names),
        categories: borrowed(served.categories),
        namespaced: served.namespaced,
        verbs: borrowed(served.verbs),
        subresources: served.subresources.iter().map(subresource).collect(),
        storage_version_hash: Cow::Borrowed(served.storage_version_hash),
        // What upstream hashes a storage version for is what it stores.
        backing: if served.storage_version_hash.is_empty() { Backing::Virtual } else { Backing::Stored },
        storage_api_version: join(storage_group, storage_version, "/"),
        storage_prefix: Cow::Owned(format!("/registry/{}", join_path(storage_group, served.resource))),
        served_by_default: is_stable(served.version),
        strategy: StrategyRef::Static(strategy(served)),
    }
}

fn subresource(served: &ServedSubresource) -> Subresource {
    Subresource {
        name: Cow::Borrowed(served.name),
        group: Cow::Borrowed(served.group),
        version: Cow::Borrowed(served.version),
        kind: Cow::Borrowed(served.kind),
        verbs: borrowed(served.verbs),
    }
}

fn borrowed(texts: &'static [&'static str]) -> Vec<Cow<'static, str>> {
    texts.iter().map(|text| Cow::Borrowed(*text)).collect()
}

/// Group and version in which a resource is stored: its most stable and then newest version; events in the core group.
fn storage(served: &Served) -> (&'static str, &'static str) {
    if served.group == "events.k8s.io" {
        return ("", "v1");
    }
    let siblings = SERVED.iter().filter(|other| other.group == served.group && other.resource == served.resource);
    let newest = siblings.max_by_key(|other| stability(other.version));
    (served.group, newest.map_or(served.version, |other| other.version))
}

fn is_stable(version: &str) -> bool {
    stability(version).0 == u32::MAX
}

/// Sorts versions: v2 > v1 > v1beta2 > v1beta1 > v1alpha3.
fn stability(version: &str) -> (u32, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let text = version.trim_start_matches('v');
    match (text.split_once("beta"), text.split_once("alpha")) {
        (Some((major, minor)), _) => (2, number(major), number(minor)),
        (_, Some((major, minor))) => (1, number(major), number(minor)),
        _ => (u32::MAX, number(text), 0),
    }
}

fn join(group: &'static str, version: &'static str, separator: &str) -> Cow<'static, str> {
    match group.is_empty() {
        true => Cow::Borrowed(version),
        false => Cow::Owned(format!("{group}{separator}{version}")),
    }
}

fn join_path(group: &'static str, resource: &'static str) -> Cow<'static, str> {
    join(group, resource, "/")
}

fn strategy(served: &Served) -> &'static dyn Strategy {
    let resource = served.resource;
    match served.group {
        "" => crate::core::strategy(resource),
        "admissionregistration.k8s.io" => crate::admissionregistration::strategy(resource),
        "apiextensions.k8s.io" => crate::apiextensions::strategy(resource),
        "apiregistration.k8s.io" => crate::apiregistration::strategy(resource),
        "apps" => crate::apps::strategy(resource),
        "autoscaling" => crate::autoscaling::strategy(served.version, resource),
        "batch" => crate::batch::strategy(resource),
        "certificates.k8s.io" => crate::certificates::strategy(resource),
        "coordination.k8s.io" => crate::coordination::strategy(resource),
        "discovery.k8s.io" => crate::discovery::strategy(resource),
        "events.k8s.io" => crate::events::strategy(resource),
        "flowcontrol.apiserver.k8s.io" => crate::flowcontrol::strategy(resource),
        "networking.k8s.io" => crate::networking::strategy(resource),
        "node.k8s.io" => crate::node::strategy(resource),
        "policy" => crate::policy::strategy(resource),
        "rbac.authorization.k8s.io" => crate::rbac::strategy(resource),
        "resource.k8s.io" => crate::resource::strategy(resource),
        "scheduling.k8s.io" => crate::scheduling::strategy(resource),
        "storage.k8s.io" => crate::storage::strategy(resource),
        "storagemigration.k8s.io" | "internal.apiserver.k8s.io" => crate::storage_version::strategy(resource),
        _ => &Generic::PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_stability() {
        let mut versions = ["v1beta1", "v1", "v1alpha3", "v2", "v1beta2"];
        versions.sort_by_key(|version| stability(version));
        assert_eq!(versions, ["v1alpha3", "v1beta1", "v1beta2", "v1", "v2"]);
    }

    #[test]
    fn descriptors_say_where_objects_lie() {
        for (group, version, kind, prefix, storage, backing, default) in [
            ("", "v1", "Pod", "/registry/pods", "v1", Backing::Stored, true),
            ("apps", "v1", "Deployment", "/registry/apps/deployments", "apps/v1", Backing::Stored, true),
            ("events.k8s.io", "v1", "Event", "/registry/events", "v1", Backing::Stored, true),
            (
                "autoscaling",
                "v1",
                "HorizontalPodAutoscaler",
                "/registry/autoscaling/horizontalpodautoscalers",
                "autoscaling/v2",
                Backing::Stored,
                true,
            ),
            (
                "networking.k8s.io",
                "v1beta1",
                "IPAddress",
                "/registry/networking.k8s.io/ipaddresses",
                "networking.k8s.io/v1",
                Backing::Stored,
                false,
            ),
            (
                "authentication.k8s.io",
                "v1",
                "TokenReview",
                "/registry/authentication.k8s.io/tokenreviews",
                "authentication.k8s.io/v1",
                Backing::Virtual,
                true,
            ),
        ] {
            let known = builtin(group, version, kind).unwrap();
            assert_eq!(known.storage_prefix, prefix);
            assert_eq!(known.storage_api_version, storage, "{known:?}");
            assert_eq!((known.backing, known.served_by_default), (backing, default), "{known:?}");
        }
        let pods = builtin_by_resource("", "v1", "pods").unwrap();
        assert_eq!(pods.key("default", "web"), "/registry/pods/default/web");
        assert_eq!(pods.prefix(""), "/registry/pods/");
        assert_eq!(pods.subresource("eviction").map(|eviction| &*eviction.group), Some("policy"));
        assert_eq!(pods.subresource("scale"), None);
    }

    #[test]
    fn virtual_kinds_are_those_that_nothing_stores() {
        let names: Vec<&str> =
            builtins().iter().filter(|kind| kind.backing == Backing::Virtual).map(|kind| &*kind.kind).collect();
        assert_eq!(
            names,
            [
                "Binding",
                "ComponentStatus",
                "SelfSubjectReview",
                "TokenReview",
                "LocalSubjectAccessReview",
                "SelfSubjectAccessReview",
                "SelfSubjectRulesReview",
                "SubjectAccessReview",
            ]
        );
    }
}
