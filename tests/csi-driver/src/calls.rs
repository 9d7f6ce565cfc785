//! What a driver was asked, for tests to look at.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// One call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Such as `NodePublishVolume`.
    pub method: String,
    /// The volume, where it was about one.
    pub volume_id: String,
    /// Where the volume was to appear.
    pub path: String,
    /// Attributes of the volume and of the pod.
    pub context: BTreeMap<String, String>,
    /// What the attachment gave.
    pub publish_context: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: BTreeMap<String, String>,
    /// How the volume is used: `mount ext4 1 ro`, `block 7`.
    pub how: String,
}

/// All calls, in order.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: Mutex<Vec<Call>>,
}

impl Calls {
    pub(crate) fn add(&self, call: Call) {
        self.calls.lock().push(call);
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }
}
