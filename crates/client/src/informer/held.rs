//! One object of an informer: as it is while it is in use, packed while nobody has asked for it for long.
//!
//! Decoded, most of an object's memory is fields that it does not set: a pod of 2 KB as JSON takes 10 KB. So an informer
//! with many objects packs all but the newest of them. Invariants: what is packed is what was held, but for who owns which
//! field; an object that has been handed out is not touched.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// So many objects of an informer are held as they are: those of a small cluster, or those that a large one works on.
const MOST_LOOSE: usize = 32_768;

/// How a kind's objects are packed. A kind without it is never packed.
pub(super) struct Packing<K> {
    pack: fn(&K) -> Option<Box<[u8]>>,
    unpack: fn(&[u8]) -> Option<K>,
}

impl<K> Clone for Packing<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Packing<K> {}

impl<K: Serialize + DeserializeOwned> Packing<K> {
    pub(super) fn of_json() -> Self {
        Self {
            pack: |object| serde_json::to_vec(object).ok().map(Vec::into_boxed_slice),
            unpack: |bytes| serde_json::from_slice(bytes).ok(),
        }
    }
}

/// An object that an informer holds.
pub(super) struct Held<K> {
    state: Mutex<State<K>>,
    /// Asked for since the last look.
    touched: AtomicBool,
    /// Its `resourceVersion`; 0 where it has none, or one that is no number.
    pub(super) version: u64,
    /// What it is found by besides its key.
    pub(super) group: Option<Arc<str>>,
}

enum State<K> {
    Loose(Arc<K>),
    Packed(Box<[u8]>, fn(&[u8]) -> Option<K>),
}

impl<K> Held<K> {
    pub(super) fn new(object: Arc<K>, version: u64, group: Option<Arc<str>>) -> Self {
        Self { state: Mutex::new(State::Loose(object)), touched: AtomicBool::new(false), version, group }
    }

    /// The object, which stays packed if it is.
    pub(super) fn object(&self) -> Arc<K> {
        match &*self.state.lock() {
            State::Loose(object) => object.clone(),
            State::Packed(bytes, unpack) => unpacked(bytes, *unpack),
        }
    }

    /// The object, where `keep` accepts it.
    pub(super) fn filtered(&self, keep: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        // Nothing is locked while `keep` looks: it may ask the informer itself.
        Some(self.object()).filter(|object| keep(object))
    }

    /// The object, and whether it had to be unpacked; then it is held as it is from now on.
    fn loosened(&self) -> (Arc<K>, bool) {
        self.touched.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        match &*state {
            State::Loose(object) => (object.clone(), false),
            State::Packed(bytes, unpack) => {
                let object = unpacked(bytes, *unpack);
                *state = State::Loose(object.clone());
                (object, true)
            }
        }
    }

    fn pack(&self, packing: Packing<K>) {
        let mut state = self.state.lock();
        if let State::Loose(object) = &*state
            && let Some(bytes) = (packing.pack)(object)
        {
            *state = State::Packed(bytes, packing.unpack);
        }
    }

    #[cfg(test)]
    pub(super) fn is_packed(&self) -> bool {
        matches!(&*self.state.lock(), State::Packed(..))
    }
}

fn unpacked<K>(bytes: &[u8], unpack: fn(&[u8]) -> Option<K>) -> Arc<K> {
    Arc::new(unpack(bytes).expect("an object that was written can be read"))
}

/// The objects that are held as they are, the oldest first.
pub(super) struct Warm<K> {
    packing: Option<Packing<K>>,
    most: usize,
    queue: Mutex<Queue<K>>,
}

struct Queue<K> {
    objects: VecDeque<Weak<Held<K>>>,
    /// Packs when there are so many, those that are gone included.
    sweep_at: usize,
}

impl<K> Warm<K> {
    pub(super) fn new(packing: Option<Packing<K>>) -> Self {
        Self::with_most(packing, MOST_LOOSE)
    }

    /// Holds `most` objects as they are, and up to a sixteenth more until it looks.
    pub(super) fn with_most(packing: Option<Packing<K>>, most: usize) -> Self {
        let queue = Queue { objects: VecDeque::new(), sweep_at: most + step(most) };
        Self { packing, most, queue: Mutex::new(queue) }
    }

    /// Takes in an object that is held as it is.
    pub(super) fn admit(&self, held: &Arc<Held<K>>) {
        let Some(packing) = self.packing else { return };
        let mut queue = self.queue.lock();
        queue.objects.push_back(Arc::downgrade(held));
        if queue.objects.len() >= queue.sweep_at {
            queue.sweep(self.most, packing);
        }
    }

    /// An object that somebody asked for by its key, and will perhaps again.
    pub(super) fn get(&self, held: &Arc<Held<K>>) -> Arc<K> {
        let (object, was_packed) = held.loosened();
        if was_packed {
            self.admit(held);
        }
        object
    }
}

impl<K> Queue<K> {
    /// Packs the oldest that nobody has asked for, then the oldest, until no more than `most` are left.
    fn sweep(&mut self, most: usize, packing: Packing<K>) {
        self.objects.retain(|held| held.strong_count() > 0);
        let mut excess = self.objects.len().saturating_sub(most);
        let mut spared = VecDeque::new();
        while excess > 0
            && let Some(oldest) = self.objects.pop_front()
        {
            let Some(held) = oldest.upgrade() else { continue };
            if held.touched.swap(false, Ordering::Relaxed) {
                spared.push_back(oldest);
                continue;
            }
            held.pack(packing);
            excess -= 1;
        }
        for oldest in spared.drain(..excess.min(spared.len())) {
            if let Some(held) = oldest.upgrade() {
                held.pack(packing);
            }
        }
        self.objects.append(&mut spared);
        self.sweep_at = self.objects.len().max(most) + step(most);
    }
}

fn step(most: usize) -> usize {
    most / 16 + 1
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "d", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r"}]},
            "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "t", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}],
                "tolerations": [{"operator": "Exists"}], "securityContext": {}},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:01Z",
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "lastState": {}, "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}}}]},
        }))
        .expect("it is a pod")
    }

    fn held(warm: &Warm<Pod>, name: &str) -> Arc<Held<Pod>> {
        let held = Arc::new(Held::new(Arc::new(pod(name)), 7, None));
        warm.admit(&held);
        held
    }

    #[test]
    fn what_was_packed_is_what_was_held() {
        let warm = Warm::with_most(Some(Packing::of_json()), 1);
        let first = held(&warm, "a");
        let second = held(&warm, "b");
        assert_eq!((first.is_packed(), second.is_packed()), (true, false));
        assert_eq!(*first.object(), pod("a"));
        assert!(first.is_packed());
        assert!(first.filtered(|pod| pod.spec.is_none()).is_none());
        assert_eq!(first.filtered(|pod| pod.spec.is_some()).as_deref(), Some(&pod("a")));
        assert_eq!(*warm.get(&first), pod("a"));
        assert_eq!((first.is_packed(), second.is_packed()), (false, true), "what is asked for is held as it is");
    }

    #[test]
    fn what_is_asked_for_stays_longer_and_what_is_gone_does_not_count() {
        let warm = Warm::with_most(Some(Packing::of_json()), 2);
        let first = held(&warm, "a");
        let second = held(&warm, "b");
        warm.get(&first);
        let third = held(&warm, "c");
        assert_eq!([&first, &second, &third].map(|held| held.is_packed()), [false, true, false]);
        drop(first);
        let fourth = held(&warm, "d");
        assert_eq!([&third, &fourth].map(|held| held.is_packed()), [false, false]);
    }

    #[test]
    fn all_asked_for_or_none_the_bound_holds() {
        for asks in [false, true] {
            let warm = Warm::with_most(Some(Packing::of_json()), 8);
            let all: Vec<_> = (0..40).map(|number| held(&warm, &format!("p{number}"))).collect();
            if asks {
                all.iter().for_each(|held| drop(warm.get(held)));
            }
            let loose = all.iter().filter(|held| !held.is_packed()).count();
            assert!((8..=8 + step(8)).contains(&loose), "{loose}");
        }
    }

    #[test]
    fn without_packing_nothing_changes() {
        let warm = Warm::with_most(None, 1);
        let all: Vec<_> = (0..10).map(|number| held(&warm, &format!("p{number}"))).collect();
        assert!(all.iter().all(|held| !held.is_packed()));
    }
}
