//! Which kinds will be served no longer, since when that is said, and what is to be used instead: upstream's facts.
//!
//! Pure.

use kedge_meta::KUBERNETES_VERSION;

/// What is known of a kind that is deprecated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deprecation {
    /// Text for a `Warning` header of every request.
    pub warning: String,
    /// The release that serves it no longer, such as `1.39`; none is planned where empty.
    pub removed_release: String,
}

struct Fact {
    group: &'static str,
    version: &'static str,
    kinds: &'static [&'static str],
    /// The minor releases of version 1.
    deprecated: u64,
    removed: Option<u64>,
    /// `group/version kind` to be used.
    replacement: &'static str,
}

const fn fact(
    group: &'static str,
    version: &'static str,
    kinds: &'static [&'static str],
    deprecated: u64,
    removed: u64,
) -> Fact {
    Fact { group, version, kinds, deprecated, removed: Some(removed), replacement: "" }
}

const POLICIES: &[&str] = &["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
const DEVICES: &[&str] = &["DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"];

const FACTS: [Fact; 18] = [
    Fact { group: "", version: "v1", kinds: &["ComponentStatus"], deprecated: 19, removed: None, replacement: "" },
    Fact {
        group: "",
        version: "v1",
        kinds: &["Endpoints"],
        deprecated: 33,
        removed: None,
        replacement: "discovery.k8s.io/v1 EndpointSlice",
    },
    fact("admissionregistration.k8s.io", "v1alpha1", POLICIES, 35, 38),
    Fact {
        group: "admissionregistration.k8s.io",
        version: "v1beta1",
        kinds: &["MutatingAdmissionPolicy"],
        deprecated: 37,
        removed: Some(40),
        replacement: "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy",
    },
    Fact {
        group: "admissionregistration.k8s.io",
        version: "v1beta1",
        kinds: &["MutatingAdmissionPolicyBinding"],
        deprecated: 37,
        removed: Some(40),
        replacement: "admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding",
    },
    fact("certificates.k8s.io", "v1alpha1", &["ClusterTrustBundle"], 34, 37),
    fact("certificates.k8s.io", "v1beta1", &["ClusterTrustBundle"], 37, 40),
    fact("certificates.k8s.io", "v1beta1", &["PodCertificateRequest"], 38, 41),
    fact("coordination.k8s.io", "v1alpha2", &["LeaseCandidate"], 35, 38),
    fact("coordination.k8s.io", "v1beta1", &["LeaseCandidate"], 36, 39),
    fact("networking.k8s.io", "v1beta1", &["IPAddress", "ServiceCIDR"], 34, 37),
    fact("resource.k8s.io", "v1alpha3", &["DeviceTaintRule"], 36, 39),
    fact("resource.k8s.io", "v1alpha3", &["ResourcePoolStatusRequest"], 39, 42),
    fact("resource.k8s.io", "v1beta1", DEVICES, 35, 38),
    fact("resource.k8s.io", "v1beta2", DEVICES, 36, 39),
    fact("resource.k8s.io", "v1beta2", &["DeviceTaintRule"], 39, 42),
    Fact {
        group: "storage.k8s.io",
        version: "v1beta1",
        kinds: &["VolumeAttributesClass"],
        deprecated: 34,
        removed: Some(37),
        replacement: "storage.k8s.io/v1 VolumeAttributesClass",
    },
    fact("storagemigration.k8s.io", "v1beta1", &["StorageVersionMigration"], 38, 41),
];

/// What this release says of a built-in kind.
pub fn deprecation(group: &str, version: &str, kind: &str) -> Option<Deprecation> {
    let minor = KUBERNETES_VERSION.split('.').nth(1)?.parse().ok()?;
    deprecation_in(minor, group, version, kind)
}

fn deprecation_in(minor: u64, group: &str, version: &str, kind: &str) -> Option<Deprecation> {
    let fact = FACTS.iter().find(|fact| {
        (fact.group, fact.version) == (group, version) && fact.kinds.contains(&kind) && fact.deprecated <= minor
    })?;
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut warning = format!("{name} {kind} is deprecated in v1.{}+", fact.deprecated);
    if let Some(removed) = fact.removed {
        warning.push_str(&format!(", unavailable in v1.{removed}+"));
    }
    if !fact.replacement.is_empty() {
        warning.push_str(&format!("; use {}", fact.replacement));
    }
    let removed_release = fact.removed.map(|removed| format!("1.{removed}")).unwrap_or_default();
    Some(Deprecation { warning, removed_release })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtins;

    #[test]
    fn what_is_deprecated_is_said_with_its_end() {
        let check = |minor, group: &str, version: &str, kind: &str, expected: Option<(&str, &str)>| {
            let found = deprecation_in(minor, group, version, kind);
            let found = found.as_ref().map(|found| (found.warning.as_str(), found.removed_release.as_str()));
            assert_eq!(found, expected, "{kind}");
        };
        check(36, "", "v1", "ComponentStatus", Some(("v1 ComponentStatus is deprecated in v1.19+", "")));
        let endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
        check(36, "", "v1", "Endpoints", Some((endpoints, "")));
        let candidate = "coordination.k8s.io/v1beta1 LeaseCandidate is deprecated in v1.36+, unavailable in v1.39+";
        check(36, "coordination.k8s.io", "v1beta1", "LeaseCandidate", Some((candidate, "1.39")));
        check(35, "coordination.k8s.io", "v1beta1", "LeaseCandidate", None);
        let class = "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; use \
                     storage.k8s.io/v1 VolumeAttributesClass";
        check(36, "storage.k8s.io", "v1beta1", "VolumeAttributesClass", Some((class, "1.37")));
        check(36, "", "v1", "Pod", None);
        assert!(deprecation("", "v1", "Endpoints").is_some());
    }

    #[test]
    fn every_fact_is_of_a_kind_that_is_served() {
        for fact in &FACTS {
            for kind in fact.kinds {
                let is_it = |known: &crate::Kind| {
                    (&*known.group, &*known.version, &*known.kind) == (fact.group, fact.version, *kind)
                };
                assert!(builtins().iter().any(is_it), "{}/{} {kind}", fact.group, fact.version);
            }
        }
    }
}
