//! The conditions of an autoscaler.
//!
//! Pure. Invariant: the time of a transition changes with the status only.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether something holds, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) holds: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Said {
    pub(super) fn new(holds: bool, reason: &str, message: impl Into<String>) -> Self {
        Self { holds, reason: reason.to_owned(), message: message.into() }
    }
}

/// Sets a condition, which comes last where it is new.
pub(super) fn set(conditions: &mut Vec<HorizontalPodAutoscalerCondition>, type_: &str, said: Said, now: Timestamp) {
    let index = conditions.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
        conditions.push(HorizontalPodAutoscalerCondition { type_: type_.to_owned(), ..Default::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[index];
    let status = if said.holds { "True" } else { "False" };
    if condition.status != status {
        condition.last_transition_time = Some(Time(now));
        condition.status = status.to_owned();
    }
    condition.reason = Some(said.reason);
    condition.message = Some(said.message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_status_is_a_transition() {
        let mut conditions = Vec::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        set(&mut conditions, "AbleToScale", Said::new(true, "A", "a"), at(1));
        set(&mut conditions, "ScalingActive", Said::new(true, "A", "a"), at(1));
        set(&mut conditions, "AbleToScale", Said::new(true, "B", "b"), at(2));
        set(&mut conditions, "ScalingActive", Said::new(false, "C", "c"), at(2));
        let shown = conditions.iter().map(|condition| {
            let since = condition.last_transition_time.as_ref().map(|time| time.0.as_second());
            (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_deref(), since)
        });
        let expected = [("AbleToScale", "True", Some("B"), Some(1)), ("ScalingActive", "False", Some("C"), Some(2))];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }
}
