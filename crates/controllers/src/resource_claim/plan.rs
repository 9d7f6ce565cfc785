//! Which claims a pod needs, and what becomes of a claim whose pods are gone.
//!
//! Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use kube::api::ObjectMeta;

use crate::owners::{controller_reference, is_controlled_by};
use crate::pods::{is_terminal, name_of};

/// Says for which entry of its pod a claim was made.
pub(super) const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps an allocated claim.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Room for the random end of a generated name in a label.
const LONGEST_BASE: usize = 57;

/// The entries of a pod.
pub(super) fn entries(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten())
}

/// Whether a claim was made for extended resources of a pod.
pub(super) fn has_extended_resources(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.extended_resource_claim_status.is_some())
}

/// The template that an entry names.
pub(super) fn template_of(entry: &PodResourceClaim) -> Option<&str> {
    entry.resource_claim_template_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a pod still needs claims.
pub(super) fn is_live(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod)
}

fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether a claim was made for a pod or is reserved for it.
pub(super) fn serves(claim: &ResourceClaim, pod: &Pod) -> bool {
    is_controlled_by(&claim.metadata, &pod.metadata)
        || consumers(claim).iter().any(|consumer| Some(&consumer.uid) == pod.metadata.uid.as_ref())
}

/// The claim that was made for an entry.
pub(super) fn claim_of_entry(pod: &Pod, entry: &PodResourceClaim, claims: &[Arc<ResourceClaim>]) -> Option<String> {
    let is_own = |claim: &&Arc<ResourceClaim>| {
        let annotations = claim.metadata.annotations.as_ref();
        claim.metadata.deletion_timestamp.is_none()
            && is_controlled_by(&claim.metadata, &pod.metadata)
            && annotations.and_then(|all| all.get(POD_CLAIM_NAME)) == Some(&entry.name)
    };
    let mut names: Vec<&str> = claims.iter().filter(is_own).map(|claim| name_of(&claim.metadata)).collect();
    names.sort_unstable();
    names.first().map(|&name| name.to_owned())
}

/// The claim for an entry, as its template says.
pub(super) fn new_claim(pod: &Pod, entry: &PodResourceClaim, template: &ResourceClaimTemplate) -> ResourceClaim {
    let metadata = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), entry.name.clone());
    let mut base = format!("{}-{}", name_of(&pod.metadata), entry.name);
    base.truncate(LONGEST_BASE);
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(format!("{base}-")),
            namespace: pod.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClaimStep {
    Nothing,
    /// Take back reservations, and the allocation with the last of them.
    Status(ResourceClaim),
    /// Let it go: nothing is allocated any more.
    Unprotect(ResourceClaim),
    /// Its pod has ended.
    Delete,
}

/// What to do about a claim, given the pods of its namespace.
pub(super) fn plan_claim(claim: &ResourceClaim, pods: &[Arc<Pod>]) -> ClaimStep {
    let with_uid = |uid: &str| pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid));
    // Consumers that are no pods are somebody else's to take back.
    let is_valid = |consumer: &&ResourceClaimConsumerReference| {
        let is_pod = consumer.resource == "pods" && consumer.api_group.as_ref().is_none_or(String::is_empty);
        !is_pod || with_uid(&consumer.uid).is_some_and(|pod| !is_terminal(pod))
    };
    let valid: Vec<ResourceClaimConsumerReference> = consumers(claim).iter().filter(is_valid).cloned().collect();
    let is_protected = claim.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let is_allocated = claim.status.as_ref().is_some_and(|status| status.allocation.is_some());
    if valid.len() < consumers(claim).len() || is_allocated && is_protected && valid.is_empty() && is_over(claim, pods)
    {
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        if valid.is_empty() {
            status.allocation = None;
            status.devices = None;
        }
        status.reserved_for = (!valid.is_empty()).then_some(valid);
        return ClaimStep::Status(changed);
    }
    // The scheduler protects a claim right before it allocates it: only one that is going is let go here.
    if !is_allocated && is_protected && valid.is_empty() && claim.metadata.deletion_timestamp.is_some() {
        return ClaimStep::Unprotect(unprotected(claim));
    }
    let is_of_ended_pod = pods.iter().any(|pod| is_controlled_by(&claim.metadata, &pod.metadata) && is_terminal(pod));
    match is_of_ended_pod && claim.metadata.deletion_timestamp.is_none() {
        true => ClaimStep::Delete,
        false => ClaimStep::Nothing,
    }
}

/// The claim without its protection.
pub(super) fn unprotected(claim: &ResourceClaim) -> ResourceClaim {
    let mut changed = claim.clone();
    changed.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    changed
}

/// Whether a claim's devices were given back, so that nothing need protect it.
pub(super) fn is_given_back(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_none_or(|status| status.allocation.is_none()) && consumers(claim).is_empty()
}

/// Whether nobody will use an allocated claim again: it is being deleted, or its pod has ended.
fn is_over(claim: &ResourceClaim, pods: &[Arc<Pod>]) -> bool {
    claim.metadata.deletion_timestamp.is_some()
        || pods.iter().any(|pod| is_controlled_by(&claim.metadata, &pod.metadata) && is_terminal(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, with_phase};
    use serde_json::{Value, json};

    fn template() -> ResourceClaimTemplate {
        serde_json::from_value(json!({
            "metadata": {"name": "gpu"},
            "spec": {"metadata": {"labels": {"kind": "gpu"}}, "spec": {"devices": {}}},
        }))
        .unwrap()
    }

    fn entry() -> PodResourceClaim {
        serde_json::from_value(json!({"name": "gpu", "resourceClaimTemplateName": "gpu"})).unwrap()
    }

    #[test]
    fn an_entry_gets_one_claim() {
        let web = pod("web");
        let mut claim = new_claim(&web, &entry(), &template());
        assert_eq!(claim.metadata.generate_name.as_deref(), Some("web-gpu-"));
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["kind"], "gpu");
        assert!(serves(&claim, &web) && !serves(&claim, &pod("other")));
        claim.metadata.name = Some("web-gpu-x".to_owned());
        let claims = [Arc::new(claim)];
        assert_eq!(claim_of_entry(&web, &entry(), &claims).as_deref(), Some("web-gpu-x"));
        let other = PodResourceClaim { name: "other".to_owned(), ..entry() };
        assert_eq!(claim_of_entry(&web, &other, &claims), None);
        assert_eq!(claim_of_entry(&pod("other"), &entry(), &claims), None);
        let long = new_claim(&pod(&"p".repeat(200)), &entry(), &template());
        assert_eq!(long.metadata.generate_name.unwrap().len(), LONGEST_BASE + 1);
    }

    #[test]
    fn what_is_reserved_for_ended_pods_is_taken_back() {
        let (web, done) = (pod("web"), with_phase(pod("done"), "Succeeded"));
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap();
        let claim = |uids: &[&str], finalizer: bool, allocated: bool| -> ResourceClaim {
            let consumers: Vec<Value> =
                uids.iter().map(|uid| json!({"resource": "pods", "name": "p", "uid": uid})).collect();
            let mut value = json!({"metadata": {"name": "c"}, "spec": {}, "status": {"reservedFor": consumers}});
            if finalizer {
                value["metadata"]["finalizers"] = json!([FINALIZER]);
            }
            if allocated {
                value["status"]["allocation"] = json!({});
            }
            serde_json::from_value(value).unwrap()
        };
        let pods = [Arc::new(web.clone()), Arc::new(done.clone())];
        let check = |claim: &ResourceClaim, expected: &str| {
            let text = match plan_claim(claim, &pods) {
                ClaimStep::Status(changed) => {
                    let allocated = changed.status.as_ref().is_some_and(|status| status.allocation.is_some());
                    format!("{} reserved, allocated: {allocated}", consumers(&changed).len())
                }
                ClaimStep::Unprotect(changed) => format!("{:?}", changed.metadata.finalizers.unwrap()),
                other => format!("{other:?}"),
            };
            assert_eq!(text, expected);
        };
        check(&claim(&[&uid(&web)], true, true), "Nothing");
        check(&claim(&[&uid(&web), &uid(&done)], true, true), "1 reserved, allocated: true");
        check(&claim(&[&uid(&done), "gone"], true, true), "0 reserved, allocated: false");
        check(&claim(&[], true, false), "Nothing");
        let mut going = claim(&[], true, false);
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        check(&going, "[]");
        check(&claim(&[], true, true), "Nothing");
        let mut of_done = new_claim(&done, &entry(), &template());
        check(&of_done, "Delete");
        of_done.metadata.owner_references = Some(vec![controller_reference(&web)]);
        check(&of_done, "Nothing");
    }
}
