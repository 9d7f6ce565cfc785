//! The pods and claims of a StatefulSet: named by ordinal, each with claims of its own.
//!
//! Pure.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::history::REVISION_HASH;
use crate::owners::controller_reference;
use crate::pods::{from_template, name_of};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name; `None` where the name is not the set's and a number.
pub(crate) fn ordinal_of(set: &str, pod: &Pod) -> Option<i32> {
    let number = name_of(&pod.metadata).strip_prefix(set)?.strip_prefix('-')?;
    number.parse().ok().filter(|ordinal: &i32| *ordinal >= 0 && number == ordinal.to_string())
}

/// The name of the revision that a pod was made from.
pub(crate) fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_HASH)).map(String::as_str).unwrap_or_default()
}

/// The pod of an ordinal, from a revision's template.
pub(crate) fn new_pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = format!("{}-{ordinal}", name_of(&set.metadata));
    let mut pod = from_template(template, controller_reference(set), namespace);
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    let claims = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let volumes = pod_spec.volumes.get_or_insert_default();
    for template in claims {
        let volume = name_of(&template.metadata);
        volumes.retain(|known| known.name != volume);
        volumes.push(Volume {
            name: volume.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{volume}-{name}"),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
    }
    pod.metadata.name = Some(name);
    pod
}

/// The claims of a pod of the set.
pub(crate) fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let of = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        let name = format!("{}-{}-{ordinal}", name_of(&template.metadata), name_of(&set.metadata));
        claim.metadata.name = Some(name);
        claim.metadata.namespace = set.metadata.namespace.clone();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.metadata.owner_references = Some(plan_owners(set, spec, &claim, false, None));
        claim.status = None;
        claim
    };
    spec.volume_claim_templates.iter().flatten().map(of).collect()
}

/// The owners of a claim under the set's retention policy: the set where claims go with it, the pod where they go with a
/// pod that is scaled away.
pub(crate) fn plan_owners(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    claim: &PersistentVolumeClaim,
    is_condemned: bool,
    pod: Option<&Pod>,
) -> Vec<OwnerReference> {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |choice: Option<&String>| choice.is_some_and(|choice| choice == "Delete");
    let with_set = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let with_pod = deletes(policy.and_then(|policy| policy.when_scaled.as_ref())) && is_condemned;
    let is_ours = |owner: &OwnerReference| {
        Some(&owner.uid) == set.metadata.uid.as_ref()
            || owner.kind == "Pod" && owner.name == pod.map(|pod| name_of(&pod.metadata)).unwrap_or_default()
    };
    let current = claim.metadata.owner_references.iter().flatten();
    let mut owners: Vec<OwnerReference> = current.filter(|owner| !is_ours(owner)).cloned().collect();
    let loosely = |owner: OwnerReference| OwnerReference { controller: None, block_owner_deletion: None, ..owner };
    match (with_pod, pod) {
        (true, Some(pod)) => owners.push(loosely(controller_reference(pod))),
        _ if with_set => owners.push(loosely(controller_reference(set))),
        _ => {}
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::pod;
    use k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy;

    fn set() -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("db".to_owned());
        set.metadata.namespace = Some("default".to_owned());
        set.metadata.uid = Some("set".to_owned());
        let mut template = PersistentVolumeClaim::default();
        template.metadata.name = Some("data".to_owned());
        set.spec = Some(StatefulSetSpec {
            service_name: Some("db".to_owned()),
            volume_claim_templates: Some(vec![template]),
            ..StatefulSetSpec::default()
        });
        set
    }

    #[test]
    fn ordinals_are_read_from_names() {
        for (name, expected) in
            [("db-0", Some(0)), ("db-12", Some(12)), ("db-01", None), ("db-x", None), ("dbx-1", None)]
        {
            assert_eq!(ordinal_of("db", &pod(name)), expected, "{name}");
        }
    }

    #[test]
    fn pods_have_names_of_their_own_and_claims() {
        let set = set();
        let spec = set.spec.as_ref().unwrap();
        let pod = new_pod(&set, spec, &spec.template, "db-abc", 2);
        assert_eq!(pod.metadata.name.as_deref(), Some("db-2"));
        assert_eq!(revision_of(&pod), "db-abc");
        let pod_spec = pod.spec.unwrap();
        assert_eq!((pod_spec.hostname.as_deref(), pod_spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
        let source = pod_spec.volumes.unwrap()[0].persistent_volume_claim.clone().unwrap();
        assert_eq!(source.claim_name, "data-db-2");
        assert_eq!(claims(&set, spec, 2)[0].metadata.name.as_deref(), Some("data-db-2"));
    }

    #[test]
    fn retention_decides_whose_the_claims_are() {
        let check = |deleted: &str, scaled: &str, condemned: bool, expected: &[&str]| {
            let mut set = set();
            let spec = set.spec.get_or_insert_default();
            spec.persistent_volume_claim_retention_policy = Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(deleted.to_owned()),
                when_scaled: Some(scaled.to_owned()),
            });
            let spec = set.spec.clone().unwrap();
            let owners = plan_owners(&set, &spec, &PersistentVolumeClaim::default(), condemned, Some(&pod("db-2")));
            let kinds: Vec<&str> = owners.iter().map(|owner| owner.kind.as_str()).collect();
            assert_eq!(kinds, expected);
        };
        check("Retain", "Retain", true, &[]);
        check("Delete", "Retain", true, &["StatefulSet"]);
        check("Delete", "Delete", false, &["StatefulSet"]);
        check("Retain", "Delete", true, &["Pod"]);
    }
}
