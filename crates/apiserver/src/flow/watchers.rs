//! How many watches would see a write.
//!
//! A number, not a list; two places that share a hash are counted as one. Invariant: a watch that has ended counts no more.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::call::Call;
use crate::target::ResourceTarget;

/// Watches by what they watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hasher: RandomState,
    counts: Mutex<HashMap<u64, u64>>,
}

/// A watch that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    inner: Arc<Inner>,
    place: u64,
}

impl Watchers {
    /// Counts a watch. Those of one node's pods are left out: hardly any write is theirs.
    pub(crate) fn watch(&self, call: &Call) -> Option<Watching> {
        let target = call.resource();
        if target.resource == "pods" {
            let fields = call.query.get("fieldSelector").and_then(|text| kedge_meta::FieldSelector::parse(text).ok());
            if fields.is_some_and(|fields| fields.exact("spec.nodeName").is_some_and(|node| !node.is_empty())) {
                return None;
            }
        }
        let place = self.place(target, &target.namespace, &target.name);
        *self.0.counts.lock().entry(place).or_default() += 1;
        Some(Watching { inner: Arc::clone(&self.0), place })
    }

    /// How many will see a write.
    pub(super) fn of(&self, target: &ResourceTarget) -> u64 {
        let counts = self.0.counts.lock();
        if counts.is_empty() {
            return 0;
        }
        let at = |namespace: &str, name: &str| counts.get(&self.place(target, namespace, name)).copied().unwrap_or(0);
        let mut seen = at("", "");
        if !target.namespace.is_empty() {
            seen += at(&target.namespace, "");
        }
        if !target.name.is_empty() {
            seen += at(&target.namespace, &target.name);
        }
        seen
    }

    fn place(&self, target: &ResourceTarget, namespace: &str, name: &str) -> u64 {
        self.0.hasher.hash_one((&target.group, &target.resource, namespace, name))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.inner.counts.lock();
        if let Some(count) = counts.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.place);
            }
        }
    }
}
