//! What an object of the API uses of what quotas limit.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, ServiceSpec};
use k8s_openapi::api::resource::v1::ResourceClaimSpec;
use kedge_kinds::Kind;
use kedge_meta::Quantity;
use kedge_quota::{Amounts, Item, looks_at};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds that can be limited by the name of their resource alone.
const BY_NAME: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// An object, read as far as quotas look at it.
pub(super) enum Subject {
    Pod(Box<Pod>),
    Claim(Box<PersistentVolumeClaim>),
    Service(Box<ServiceSpec>),
    Devices(Box<ResourceClaimSpec>),
    /// Everything of which only the number can be limited: how that is named.
    Other(Vec<String>),
}

/// Where an object stands.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Object(&'a Value),
    Stored(&'a [u8]),
}

#[derive(Deserialize)]
struct Specified<T> {
    spec: T,
}

impl Source<'_> {
    fn read<T: DeserializeOwned>(self) -> Result<Box<T>, serde_json::Error> {
        match self {
            Self::Object(object) => T::deserialize(object).map(Box::new),
            Self::Stored(bytes) => serde_json::from_slice(bytes).map(Box::new),
        }
    }

    fn spec<T: DeserializeOwned>(self) -> Result<Box<T>, serde_json::Error> {
        self.read::<Specified<T>>().map(|specified| Box::new(specified.spec))
    }
}

impl Subject {
    /// Reads an object of a kind. One that cannot be read counts by its number.
    pub(super) fn of(kind: &Kind, source: Source<'_>) -> Self {
        let read = match (&*kind.group, &*kind.resource) {
            ("", "pods") => source.read().map(Self::Pod),
            ("", "persistentvolumeclaims") => source.read().map(Self::Claim),
            ("", "services") => source.spec().map(Self::Service),
            ("resource.k8s.io", "resourceclaims") => source.spec().map(Self::Devices),
            _ => Ok(Self::Other(names(kind))),
        };
        read.unwrap_or_else(|error| {
            tracing::error!(resource = %kind.resource, %error, "an object cannot be read for its quota");
            Self::Other(names(kind))
        })
    }

    /// Whether a quota with this `spec` looks at it.
    pub(super) fn is_seen_by(&self, spec: &ResourceQuotaSpec) -> bool {
        let item = match self {
            Self::Pod(pod) => Item::Pod(pod),
            Self::Claim(claim) => Item::Claim(claim),
            _ => Item::Other,
        };
        looks_at(spec, item)
    }

    /// What it uses at a time.
    pub(super) fn uses(&self, now: jiff::Timestamp) -> Amounts {
        match self {
            Self::Pod(pod) => kedge_quota::of_pod(pod, now),
            Self::Claim(claim) => kedge_quota::of_claim(claim),
            Self::Service(spec) => kedge_quota::of_service(spec),
            Self::Devices(spec) => kedge_quota::of_resource_claim(spec),
            Self::Other(names) => names.iter().map(|name| (name.clone(), Quantity::from_units(1))).collect(),
        }
    }

    /// After which time it uses something else than now, without anybody writing it: a pod that should have gone then.
    pub(super) fn changes_after(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let Self::Pod(pod) = self else { return None };
        let deleted = pod.metadata.deletion_timestamp.as_ref().zip(pod.metadata.deletion_grace_period_seconds);
        let (at, grace) = deleted?;
        let gone = at.0.checked_add(jiff::SignedDuration::from_secs(grace)).ok()?;
        (gone >= now).then_some(gone)
    }
}

fn names(kind: &Kind) -> Vec<String> {
    let mut names = vec![match kind.group.is_empty() {
        true => format!("count/{}", kind.resource),
        false => format!("count/{}.{}", kind.resource, kind.group),
    }];
    if kind.group.is_empty() && BY_NAME.contains(&&*kind.resource) {
        names.push(kind.resource.to_string());
    }
    names
}

#[cfg(test)]
mod tests {
    use kedge_quota::format;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_read_as_far_as_they_count() {
        let check = |group: &str, resource: &str, object: Value, expected: &[&str]| {
            let kind = kedge_kinds::builtin_by_resource(group, "v1", resource).unwrap();
            let text = object.to_string();
            for source in [Source::Object(&object), Source::Stored(text.as_bytes())] {
                let used = Subject::of(kind, source).uses(jiff::Timestamp::UNIX_EPOCH);
                let shown: Vec<String> =
                    used.iter().map(|(name, amount)| format!("{name}={}", format(name, *amount))).collect();
                assert_eq!(shown, expected, "{object}");
            }
        };
        let condition = json!([{"type": "A", "status": "True", "lastTransitionTime": null}]);
        let service = json!({"spec": {"type": "ClusterIP"}, "status": {"conditions": condition}});
        check("", "services", service, &["count/services=1", "services=1"]);
        check("", "pods", json!({"status": {"conditions": condition}}), &["count/pods=1", "pods=1"]);
        check("", "secrets", json!({}), &["count/secrets=1", "secrets=1"]);
        check("apps", "deployments", json!({}), &["count/deployments.apps=1"]);
        check("", "pods", json!({"spec": 1}), &["count/pods=1"]);
    }
}
