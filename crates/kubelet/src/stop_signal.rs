//! The signal that a container's spec asks to be ended by.
//!
//! A runtime that knows such signals (the CRI of v1.33) gets it with the container and says so in its status. Others would
//! send the image's; of those, a containerd is asked to send the right one. Invariant: a container never gets more time
//! than its grace period.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use kedge_cri::{CriError, StopSignal};

use crate::agent::Agent;
use crate::runtime_state::ContainerRecord;

/// The signal that the spec asks for.
pub(crate) fn of(container: &Container) -> Option<StopSignal> {
    let name = container.lifecycle.as_ref()?.stop_signal.as_deref()?;
    StopSignal::from_name(name)
}

/// What the status shows: what the runtime says, else what the node agent will see to.
pub(crate) fn shown(container: &Container, record: &ContainerRecord) -> Option<String> {
    let signal = record.stop_signal.or_else(|| of(container))?;
    Some(signal.name().to_owned())
}

/// Ends a container by its own signal, and by SIGKILL after `grace`.
// DIVERGES: with a runtime that has no stop signals, upstream lets it send the image's.
pub(crate) async fn stop(
    agent: &Agent,
    container: Option<&Container>,
    record: &ContainerRecord,
    grace: Duration,
) -> Result<(), CriError> {
    let Some(signal) = container.and_then(of).filter(|_| record.stop_signal.is_none() && record.running()) else {
        return agent.runtime.stop_container(&record.id, grace).await;
    };
    match agent.runtime.signal_task(&record.id, signal.number()).await {
        Ok(()) => {}
        Err(error) if error.is_not_found() => return agent.runtime.stop_container(&record.id, grace).await,
        Err(error) => {
            let container = &record.name;
            tracing::warn!(container, %error, signal = signal.name(), "the runtime sends its own signal instead");
            return agent.runtime.stop_container(&record.id, grace).await;
        }
    }
    if let Err(error) = agent.runtime.wait_task(&record.id, grace).await {
        tracing::warn!(container = record.name, %error, "failed to wait for the end of a container");
    }
    // What has ended is only noted; what has not has had its time.
    agent.runtime.stop_container(&record.id, Duration::ZERO).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Lifecycle;

    use super::*;
    use crate::runtime_state::ContainerPhase;
    use crate::runtime_state::fixtures::container as record;

    #[test]
    fn the_runtimes_word_comes_first() {
        let lifecycle = Lifecycle { stop_signal: Some("SIGUSR1".to_owned()), ..Lifecycle::default() };
        let asking = Container { lifecycle: Some(lifecycle), ..Container::default() };
        let mut known = record("c", ContainerPhase::Running, 0);
        assert_eq!(shown(&Container::default(), &known), None);
        assert_eq!(shown(&asking, &known).as_deref(), Some("SIGUSR1"));
        known.stop_signal = StopSignal::from_name("SIGTERM");
        assert_eq!(shown(&asking, &known).as_deref(), Some("SIGTERM"));
    }
}
