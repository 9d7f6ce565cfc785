//! Removal of the containers of pods that are over, when the disk is short.
//!
//! In ordinary times each pod's worker keeps one dead container of a name, for its log. Invariant: nothing that runs, and
//! nothing of a pod that may start again, is touched.

use crate::agent::Agent;
use crate::kill;
use crate::runtime_state::PodRuntime;
use crate::spec;

/// Removes the containers and sandboxes of all pods that have ended.
pub(crate) async fn remove_all_unused(agent: &Agent) {
    for uid in agent.states.uids() {
        let state = agent.states.get(&uid);
        let phase = agent.statuses.get(&uid).and_then(|status| status.phase);
        if !is_over(phase.as_deref(), &state) {
            continue;
        }
        tracing::info!(
            pod = state.name,
            namespace = state.namespace,
            "removing the containers of a pod that has ended"
        );
        if let Err(error) = kill::remove_all(agent, &state).await {
            tracing::warn!(pod = state.name, %error, "failed to remove the containers of a pod that has ended");
        }
        if let Err(error) = agent.states.refresh(&uid).await {
            tracing::debug!(pod = state.name, %error, "the state of a pod is not known");
        }
    }
}

fn is_over(phase: Option<&str>, state: &PodRuntime) -> bool {
    spec::is_terminal_phase(phase) && !state.any_running()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_state::ContainerPhase;
    use crate::runtime_state::fixtures::{container, runtime, sandbox};

    #[test]
    fn only_what_has_ended_goes() {
        let dead = runtime(vec![sandbox(0, false)], vec![container("a", ContainerPhase::Exited, 0)]);
        let live = runtime(vec![sandbox(0, true)], vec![container("a", ContainerPhase::Running, 0)]);
        for (phase, state, expected) in [
            (Some("Succeeded"), &dead, true),
            (Some("Failed"), &dead, true),
            (Some("Running"), &dead, false),
            (None, &dead, false),
            (Some("Failed"), &live, false),
        ] {
            assert_eq!(is_over(phase, state), expected, "{phase:?}");
        }
    }
}
