//! What the repair of node ports found.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::header;

/// The counters; what they count is upstream's.
#[derive(Debug, Default)]
pub(crate) struct PortRepairs {
    /// By upstream's type of error.
    errors: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) failures: AtomicU64,
}

impl PortRepairs {
    /// Something was wrong with a port: `leak`, `repair`, `outOfRange` or `duplicate`.
    pub(crate) fn found(&self, error: &'static str) {
        *self.errors.lock().entry(error).or_default() += 1;
    }

    pub(super) fn write(&self, text: &mut String) {
        let name = "apiserver_nodeport_repair_port_errors_total";
        let help = "Number of errors detected on ports by the repair loop broken down by type of error: leak, repair, full, outOfRange, duplicate, unknown";
        header(text, name, "counter", help);
        for (error, count) in &*self.errors.lock() {
            let _ = writeln!(text, "{name}{{type=\"{error}\"}} {count}");
        }
        let name = "apiserver_nodeport_repair_reconcile_errors_total";
        header(text, name, "counter", "Number of reconciliation failures on the nodeport repair reconcile loop");
        let _ = writeln!(text, "{name} {}", self.failures.load(Relaxed));
    }
}
