//! Which admission plugins there are, and which of them are on: upstream's names and upstream's defaults.
//!
//! Invariant: a name is known if upstream knows it. What upstream ships and Kedge lacks may be named, and has no effect;
//! [`check_plugins`] says which.

use super::member::{Member, Steps};
use super::{
    Plugin, always_pull_images, certificates, claim_status, default_toleration_seconds, device_admin_access,
    device_taints, limit_ranger, match_conditions, namespace_lifecycle, node_declared_features, node_restriction,
    pod_resize, pod_security, pod_topology_labels, policies, priority, privileged, rbac_escalation, resource_quota,
    runtime_class, service_account, service_allocation, storage, taint_nodes, webhooks,
};
use crate::config::Config;

type Make = fn() -> Box<dyn Plugin>;

struct Entry {
    name: &'static str,
    is_on_by_default: bool,
    steps: Steps,
    make: Make,
}

impl Entry {
    fn is_on(&self, config: &Config) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == self.name);
        !named(&config.disable_admission_plugins) && (self.is_on_by_default || named(&config.enable_admission_plugins))
    }

    fn member(&self) -> Member {
        Member::new(self.name, self.steps, (self.make)())
    }
}

const fn on(name: &'static str, steps: Steps, make: Make) -> Entry {
    Entry { name, is_on_by_default: true, steps, make }
}

const CERTIFICATES: &str = "CertificateApproval";

/// In upstream's order.
static PLUGINS: [Entry; 19] = [
    on("NamespaceLifecycle", Steps::VALIDATE, || Box::new(namespace_lifecycle::NamespaceLifecycle)),
    on("LimitRanger", Steps::BOTH, || Box::new(limit_ranger::LimitRanger)),
    on("ServiceAccount", Steps::ADMIT, || Box::new(service_account::ServiceAccount)),
    Entry {
        is_on_by_default: false,
        ..on("NodeRestriction", Steps::BOTH, || Box::new(node_restriction::NodeRestriction))
    },
    on("TaintNodesByCondition", Steps::ADMIT, || Box::new(taint_nodes::TaintNodesByCondition)),
    Entry {
        is_on_by_default: false,
        ..on("AlwaysPullImages", Steps::BOTH, || Box::new(always_pull_images::AlwaysPullImages))
    },
    on("PodSecurity", Steps::VALIDATE, || Box::new(pod_security::PodSecurity)),
    on("Priority", Steps::BOTH, || Box::new(priority::Priority)),
    on("DefaultTolerationSeconds", Steps::ADMIT, || Box::new(default_toleration_seconds::DefaultTolerationSeconds)),
    on("DefaultStorageClass", Steps::ADMIT, || Box::new(storage::DefaultStorageClass)),
    on("StorageObjectInUseProtection", Steps::ADMIT, || Box::new(storage::StorageObjectInUseProtection)),
    on("PersistentVolumeClaimResize", Steps::VALIDATE, || Box::new(storage::PersistentVolumeClaimResize)),
    on("RuntimeClass", Steps::ADMIT, || Box::new(runtime_class::RuntimeClass)),
    // One plugin does the work of CertificateApproval, CertificateSigning and CertificateSubjectRestriction.
    on(CERTIFICATES, Steps::BOTH, || Box::new(certificates::Certificates)),
    on("DefaultIngressClass", Steps::ADMIT, || Box::new(storage::DefaultIngressClass)),
    on("PodTopologyLabels", Steps::ADMIT, || Box::new(pod_topology_labels::PodTopologyLabels)),
    on("NodeDeclaredFeatureValidator", Steps::VALIDATE, || {
        Box::new(node_declared_features::NodeDeclaredFeatureValidator)
    }),
    on("PodResizeValidator", Steps::VALIDATE, || Box::new(pod_resize::PodResizeValidator)),
    on("ResourceQuota", Steps::RESERVE, || Box::new(resource_quota::ResourceQuota::default())),
];

/// Upstream's plugins that are not here, are part of another one, or only act on what its gates keep off.
const WITHOUT_EFFECT: [&str; 18] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "JobValidation",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "OwnerReferencesPermissionEnforcement",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodNodeSelector",
    "PodTolerationRestriction",
];

/// What is asked after all plugins.
static POLICIES: [Entry; 1] =
    [on("ValidatingAdmissionPolicy", Steps::VALIDATE, || Box::new(policies::ValidatingPolicies::new()))];

/// What is no plugin here, and can be turned off like one.
const OTHERS: [&str; 3] = [policies::MUTATING, webhooks::MUTATING, webhooks::VALIDATING];

/// A name that is no plugin's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown admission plugin \"{0}\"")]
pub struct UnknownPlugin(pub String);

/// Which of the named plugins have no effect here; an error where one is none of upstream's.
pub fn check_plugins(names: &[String]) -> Result<Vec<&str>, UnknownPlugin> {
    let mut without_effect = Vec::new();
    for name in names {
        if PLUGINS.iter().chain(&POLICIES).any(|entry| entry.name == name) || OTHERS.iter().any(|known| known == name) {
            continue;
        }
        if !WITHOUT_EFFECT.iter().any(|known| known == name) {
            return Err(UnknownPlugin(name.clone()));
        }
        without_effect.push(name.as_str());
    }
    Ok(without_effect)
}

/// The plugins that are on. What keeps privileges from growing and addresses unique can't be turned off.
pub(super) fn selected(config: &Config) -> Vec<Member> {
    let mut plugins: Vec<Member> = PLUGINS.iter().filter(|entry| entry.is_on(config)).map(Entry::member).collect();
    // Quota comes after everything that may refuse.
    let quota = plugins.len() - usize::from(PLUGINS[PLUGINS.len() - 1].is_on(config));
    plugins.insert(quota, Member::unnamed(Steps::VALIDATE, Box::new(rbac_escalation::RbacEscalation)));
    // Upstream's defaults do this.
    plugins.insert(quota, Member::unnamed(Steps::ADMIT, Box::new(device_taints::DeviceTaintTimes)));
    // Upstream's validation does this.
    plugins.insert(quota, Member::unnamed(Steps::VALIDATE, Box::new(device_admin_access::DeviceAdminAccess)));
    plugins.insert(quota, Member::unnamed(Steps::VALIDATE, Box::new(claim_status::ClaimStatusRights)));
    plugins.insert(quota, Member::unnamed(Steps::VALIDATE, Box::new(match_conditions::MatchConditions)));
    if !config.allow_privileged {
        plugins.insert(quota, Member::unnamed(Steps::VALIDATE, Box::new(privileged::DenyPrivileged)));
    }
    plugins.push(Member::unnamed(Steps::RESERVE, Box::new(service_allocation::ServiceAllocation)));
    plugins
}

/// The plugins of policies that are on, but for those that change something.
pub(super) fn policies(config: &Config) -> Vec<Member> {
    POLICIES.iter().filter(|entry| entry.is_on(config)).map(Entry::member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_chosen_by_name() {
        let count = |enable: &[&str], disable: &[&str], allow_privileged: bool| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let config = Config {
                enable_admission_plugins: owned(enable),
                disable_admission_plugins: owned(disable),
                allow_privileged,
                ..Config::default()
            };
            selected(&config).len()
        };
        let usual = count(&[], &[], true);
        assert_eq!(usual, PLUGINS.len() - 2 + 6);
        assert_eq!(count(&["NodeRestriction"], &[], true), usual + 1);
        assert_eq!(count(&["NodeRestriction"], &["NodeRestriction"], true), usual);
        assert_eq!(count(&[], &["LimitRanger", "ResourceQuota"], true), usual - 2);
        assert_eq!(count(&[], &[], false), usual + 1);
    }

    #[test]
    fn names_are_upstreams() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            check_plugins(&names(&["PodSecurity", "MutatingAdmissionWebhook", "PodNodeSelector"])),
            Ok(vec!["PodNodeSelector"])
        );
        assert_eq!(check_plugins(&names(&["Nonsense"])), Err(UnknownPlugin("Nonsense".to_owned())));
    }
}
