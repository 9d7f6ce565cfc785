//! The node's decision to end a pod, with the time it gets and the condition that says why.
//!
//! Pure. Invariant: the condition's time is that of the decision, however often the status is computed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

use crate::status::{Stop, time};

/// An order to end a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Termination {
    pub(crate) uid: String,
    /// What the status says.
    pub(crate) stop: Stop,
    /// The pod gets no more time than this.
    pub(crate) grace: Duration,
    /// Where the pod is not to blame, the condition `DisruptionTarget` has this text.
    pub(crate) disruption: Option<String>,
    pub(crate) decided_at: Timestamp,
}

impl Termination {
    /// Adds the condition to a status that does not have it yet.
    pub(crate) fn mark(&self, status: &mut PodStatus, generation: Option<i64>) {
        let Some(message) = &self.disruption else { return };
        let conditions = status.conditions.get_or_insert_default();
        if conditions.iter().any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True") {
            return;
        }
        conditions.retain(|condition| condition.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message.clone()),
            last_transition_time: Some(time(self.decided_at)),
            observed_generation: generation,
            last_probe_time: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_added_once_and_only_where_the_pod_is_not_to_blame() {
        let mut termination = Termination {
            uid: "u".to_owned(),
            stop: Stop { reason: "Evicted".to_owned(), message: "m".to_owned(), rejected: false },
            grace: Duration::ZERO,
            disruption: None,
            decided_at: Timestamp::from_second(5).unwrap(),
        };
        let mut status = PodStatus::default();
        termination.mark(&mut status, Some(1));
        assert_eq!(status, PodStatus::default());
        termination.disruption = Some("low".to_owned());
        termination.mark(&mut status, Some(1));
        let once = status.clone();
        termination.mark(&mut status, Some(1));
        assert_eq!(status, once);
        let condition = &once.conditions.unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("TerminationByKubelet"));
        assert_eq!(condition.last_transition_time.as_ref().unwrap().0.as_second(), 5);
    }
}
