//! Why a volume is not there, in upstream's words.
//!
//! Invariant: but for claims, the text is `<operation> failed for volume "<name>" : <cause>`, which people and tools search
//! for.

/// What was being done when a volume failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The pod's own part of a mount.
    SetUp,
    /// Before anything is asked of a driver.
    NewMounter,
    /// Waiting for a controller.
    WaitForAttach,
    /// The part of a mount that all pods share.
    MountDevice,
    /// A block device.
    SetUpDevice,
    /// The pod's own part of a block device.
    MapPodDevice,
    /// Finding out which volume a claim stands for.
    Process,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::SetUp => "MountVolume.SetUp",
            Self::NewMounter => "MountVolume.NewMounter initialization",
            Self::WaitForAttach => "MountVolume.WaitForAttach",
            Self::MountDevice => "MountVolume.MountDevice",
            Self::SetUpDevice => "MapVolume.SetUpDevice",
            Self::MapPodDevice => "MapVolume.MapPodDevice",
            Self::Process => "Process",
        }
    }
}

/// Why a volume is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct VolumeError {
    pub(crate) operation: Operation,
    pub(crate) volume: String,
    pub(crate) message: String,
    /// The volume's name in the pod, where that is another one.
    pub(crate) in_pod: Option<String>,
}

impl VolumeError {
    pub(crate) fn new(operation: Operation, volume: &str, message: impl ToString) -> Self {
        Self { operation, volume: volume.to_owned(), message: message.to_string(), in_pod: None }
    }

    pub(crate) fn set_up(volume: &str, message: impl ToString) -> Self {
        Self::new(Operation::SetUp, volume, message)
    }

    fn text(&self) -> String {
        let Self { operation, volume, message, .. } = self;
        match operation {
            Operation::Process => unmounted(volume, volume, message),
            _ => format!("{} failed for volume {volume:?} : {message}", operation.text()),
        }
    }

    /// The same about the volume `name` of a pod.
    pub(crate) fn of(self, name: &str) -> Self {
        Self { in_pod: Some(name.to_owned()), ..self }
    }

    /// What upstream says after two minutes without the volume.
    pub fn timed_out(&self) -> String {
        let name = self.in_pod.as_deref().unwrap_or(&self.volume);
        unmounted(name, "", "timed out waiting for the condition")
    }

    /// The reason of the event that tells of it.
    pub fn reason(&self) -> &'static str {
        match self.operation {
            Operation::SetUpDevice | Operation::MapPodDevice => "FailedMapVolume",
            _ => "FailedMount",
        }
    }
}

fn unmounted(unmounted: &str, failed: &str, cause: &str) -> String {
    format!(
        "Unable to attach or mount volumes: unmounted volumes=[{unmounted}], unattached volumes=[], failed to process volumes=[{failed}]: {cause}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let check = |operation: Operation, expected: &str, reason: &str| {
            let error = VolumeError::new(operation, "v", "no");
            assert_eq!((error.to_string().as_str(), error.reason()), (expected, reason));
        };
        check(Operation::SetUp, "MountVolume.SetUp failed for volume \"v\" : no", "FailedMount");
        check(
            Operation::NewMounter,
            "MountVolume.NewMounter initialization failed for volume \"v\" : no",
            "FailedMount",
        );
        check(
            Operation::Process,
            "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: no",
            "FailedMount",
        );
        check(Operation::SetUpDevice, "MapVolume.SetUpDevice failed for volume \"v\" : no", "FailedMapVolume");
    }
}
