//! What controllers ask about pods, and how they make them from templates.
//!
//! Pure. The states are upstream's: active (neither ended nor terminating), ready, available (ready for long enough).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The phase, empty where none is reported yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether all containers have ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod runs or is going to.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod is being deleted and its containers have not ended yet.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// A condition by its type.
pub(crate) fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == condition_type)
}

/// Whether the pod's Ready condition is True.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|ready| ready.status == "True")?.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && time_to_available(pod, min_ready_seconds, now).is_none()
}

/// How long a ready pod still has to stay ready until it is available.
pub(crate) fn time_to_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 || !is_ready(pod) {
        return None;
    }
    let left = match ready_since(pod) {
        Some(since) => SignedDuration::from_secs(min_ready_seconds.into()) - now.duration_since(since),
        None => SignedDuration::from_secs(min_ready_seconds.into()),
    };
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// The node the pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The name of an object, empty where it has none.
pub(crate) fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// A pod from a template. The API server completes the name.
pub(crate) fn from_template(template: &PodTemplateSpec, owner: OwnerReference, namespace: &str) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(&owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The prefix of a dependent's name; without the dash where that would be no valid name.
fn generate_name(owner: &str) -> String {
    let prefix = format!("{owner}-");
    // The server appends five characters.
    match kedge_meta::is_dns1123_subdomain(&format!("{prefix}aaaaa")) {
        true => prefix,
        false => owner.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Pods as tests need them.

    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    /// A running pod of namespace `default`, its uid equal to its name.
    pub(crate) fn pod(name: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some(name.to_owned()),
                creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { node_name: Some("node-1".to_owned()), ..PodSpec::default() }),
            status: Some(PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() }),
        }
    }

    pub(crate) fn with_phase(mut pod: Pod, phase: &str) -> Pod {
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        pod
    }

    pub(crate) fn terminating(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pod
    }

    /// Ready since a number of seconds after the epoch.
    pub(crate) fn ready(mut pod: Pod, since: i64) -> Pod {
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(Timestamp::from_second(since).expect("a small number"))),
            ..PodCondition::default()
        };
        pod.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        pod
    }

    pub(crate) fn on_node(mut pod: Pod, node: Option<&str>) -> Pod {
        pod.spec.get_or_insert_default().node_name = node.map(str::to_owned);
        pod
    }

    pub(crate) fn created(mut pod: Pod, seconds: i64) -> Pod {
        pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(seconds).expect("a small number")));
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{pod, ready, terminating, with_phase};
    use super::*;

    #[test]
    fn availability_counts_from_readiness() {
        let now = Timestamp::from_second(100).unwrap();
        let check = |pod: Pod, min_ready: i32, available: bool, left: Option<u64>| {
            assert_eq!(is_available(&pod, min_ready, now), available);
            assert_eq!(time_to_available(&pod, min_ready, now), left.map(Duration::from_secs));
        };
        check(pod("a"), 0, false, None);
        check(ready(pod("a"), 90), 0, true, None);
        check(ready(pod("a"), 90), 10, true, None);
        check(ready(pod("a"), 90), 15, false, Some(5));
    }

    #[test]
    fn states_exclude_one_another() {
        let check = |pod: Pod, active, ending| {
            assert_eq!((is_active(&pod), is_terminating(&pod)), (active, ending), "{pod:?}");
        };
        check(pod("a"), true, false);
        check(terminating(pod("a")), false, true);
        check(with_phase(pod("a"), "Succeeded"), false, false);
        check(terminating(with_phase(pod("a"), "Failed")), false, false);
    }

    #[test]
    fn long_owner_names_still_give_valid_pod_names() {
        assert_eq!(generate_name("web"), "web-");
        assert_eq!(generate_name(&"a".repeat(250)), "a".repeat(250));
    }
}
