//! What systemd is told of this process, where a unit of type `notify` started it. Elsewhere nothing happens.

use sd_notify::NotifyState;

/// The work has begun: what waits for this unit may start.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The end was asked for, and what is running is finished in order.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
