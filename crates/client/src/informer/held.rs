//! One object of an informer: as it is while it is in use, packed while nobody has asked for it for long.
//!
//! Decoded, most of an object's memory is fields that it does not set: a pod of 2 KB as JSON takes 10 KB. So an informer
//! with many objects packs all but the newest of them, and more of them once they have rested. Invariants: what is packed
//! is what was held, but for who owns which field; an object that has been handed out is not touched.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::packing::{Packed, Packing};

/// So many objects of an informer are held as they are: those that a large cluster works on.
const MOST_LOOSE: usize = 32_768;
/// So many stay as they are even where nobody asks for them: those of a small cluster.
const MOST_AT_REST: usize = 8192;
/// So many are packed before others get their turn on the thread.
const SLICE: usize = 256;
/// How often it is looked which objects are at rest: those that were held before the last look, and not asked for since.
pub(super) const REST_PERIOD: Duration = Duration::from_secs(60);

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
    Packed(Packed<K>),
}

impl<K> Held<K> {
    pub(super) fn new(object: Arc<K>, version: u64, group: Option<Arc<str>>) -> Self {
        Self { state: Mutex::new(State::Loose(object)), touched: AtomicBool::new(false), version, group }
    }

    /// The object, which stays packed if it is.
    pub(super) fn object(&self) -> Arc<K> {
        match &*self.state.lock() {
            State::Loose(object) => object.clone(),
            State::Packed(packed) => packed.object(),
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
            State::Packed(packed) => {
                let object = packed.object();
                *state = State::Loose(object.clone());
                (object, true)
            }
        }
    }

    fn pack(&self, packing: &Packing<K>) {
        let mut state = self.state.lock();
        if let State::Loose(object) = &*state
            && let Some(packed) = packing.pack(object)
        {
            *state = State::Packed(packed);
        }
    }

    #[cfg(test)]
    pub(super) fn is_packed(&self) -> bool {
        matches!(&*self.state.lock(), State::Packed(..))
    }
}

/// The objects that are held as they are, the oldest first.
pub(super) struct Warm<K> {
    packing: Option<Packing<K>>,
    most: usize,
    most_at_rest: usize,
    queue: Mutex<Queue<K>>,
}

struct Queue<K> {
    objects: VecDeque<Admitted<K>>,
    /// Packs when there are so many, those that are gone included.
    sweep_at: usize,
    /// How often it was looked what is at rest.
    looks: u32,
}

struct Admitted<K> {
    held: Weak<Held<K>>,
    /// After so many looks.
    at: u32,
}

impl<K> Warm<K> {
    pub(super) fn new(packing: Option<Packing<K>>) -> Self {
        Self::with_most(packing, MOST_LOOSE, MOST_AT_REST)
    }

    /// Holds `most` objects as they are, and a few more until it looks; of those at rest no more than
    /// `most_at_rest`.
    pub(super) fn with_most(packing: Option<Packing<K>>, most: usize, most_at_rest: usize) -> Self {
        let queue = Queue { objects: VecDeque::new(), sweep_at: most + step(most), looks: 0 };
        Self { packing, most, most_at_rest, queue: Mutex::new(queue) }
    }

    /// Takes in an object that is held as it is.
    pub(super) fn admit(&self, held: &Arc<Held<K>>) {
        let Some(packing) = &self.packing else { return };
        let mut queue = self.queue.lock();
        let at = queue.looks;
        queue.objects.push_back(Admitted { held: Arc::downgrade(held), at });
        if queue.objects.len() >= queue.sweep_at {
            queue.sweep(self.most, packing);
        }
    }

    /// Packs what is at rest, a slice at a time. To be called once in each [`REST_PERIOD`].
    pub(super) async fn rest(&self) {
        let Some(packing) = &self.packing else { return };
        let before = self.queue.lock().look();
        while self.queue.lock().rest(self.most_at_rest, before, packing) {
            tokio::task::yield_now().await;
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
    fn sweep(&mut self, most: usize, packing: &Packing<K>) {
        self.forget_gone();
        let excess = self.objects.len().saturating_sub(most);
        let (packed, mut spared) = self.pack_unasked(excess, u32::MAX, packing);
        for oldest in spared.drain(..(excess - packed).min(spared.len())) {
            if let Some(held) = oldest.held.upgrade() {
                held.pack(packing);
            }
        }
        self.objects.append(&mut spared);
        self.sweep_at = self.objects.len().max(most) + step(most);
    }

    /// The look that begins now: what was admitted before the last one may be at rest.
    fn look(&mut self) -> u32 {
        self.forget_gone();
        self.looks += 1;
        self.looks - 1
    }

    /// Packs some of those that nobody has asked for since the look `before`, as long as there are more than `most` that
    /// are not packed; whether it may have left some.
    fn rest(&mut self, most: usize, before: u32, packing: &Packing<K>) -> bool {
        let excess = self.objects.len().saturating_sub(most).min(SLICE);
        let (packed, mut spared) = self.pack_unasked(excess, before, packing);
        spared.iter_mut().for_each(|asked_for| asked_for.at = self.looks);
        self.objects.append(&mut spared);
        packed == SLICE
    }

    fn forget_gone(&mut self) {
        self.objects.retain(|admitted| admitted.held.strong_count() > 0);
    }

    /// Packs up to `count` of the oldest that were admitted before the look `before`; how many, and those that were spared
    /// because somebody has asked for them.
    fn pack_unasked(&mut self, count: usize, before: u32, packing: &Packing<K>) -> (usize, VecDeque<Admitted<K>>) {
        let (mut packed, mut spared) = (0, VecDeque::new());
        while packed < count
            && self.objects.front().is_some_and(|oldest| oldest.at < before)
            && let Some(oldest) = self.objects.pop_front()
        {
            let Some(held) = oldest.held.upgrade() else { continue };
            if held.touched.swap(false, Ordering::Relaxed) {
                spared.push_back(oldest);
                continue;
            }
            held.pack(packing);
            packed += 1;
        }
        (packed, spared)
    }
}

fn step(most: usize) -> usize {
    most / 128 + 1
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
        let warm = Warm::with_most(Some(Packing::of_json()), 1, 1);
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
        let warm = Warm::with_most(Some(Packing::of_json()), 2, 2);
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
            let warm = Warm::with_most(Some(Packing::of_json()), 8, 8);
            let all: Vec<_> = (0..40).map(|number| held(&warm, &format!("p{number}"))).collect();
            if asks {
                all.iter().for_each(|held| drop(warm.get(held)));
            }
            let loose = all.iter().filter(|held| !held.is_packed()).count();
            assert!((8..=8 + step(8)).contains(&loose), "{loose}");
        }
    }

    #[tokio::test]
    async fn what_rests_is_packed_and_what_is_asked_for_is_not() {
        let warm = Warm::with_most(Some(Packing::of_json()), 100, 2);
        let all: Vec<_> = (0..5).map(|number| held(&warm, &format!("p{number}"))).collect();
        let packed = || all.iter().map(|held| u8::from(held.is_packed())).collect::<Vec<_>>();
        warm.rest().await;
        assert_eq!(packed(), [0, 0, 0, 0, 0], "nothing has rested yet");
        drop(warm.get(&all[1]));
        warm.rest().await;
        assert_eq!(packed(), [1, 0, 1, 1, 0], "two may stay");
        let late = held(&warm, "late");
        warm.rest().await;
        assert_eq!((packed(), late.is_packed()), (vec![1, 0, 1, 1, 1], false), "what is new has not rested");
        assert_eq!(*warm.get(&all[0]), pod("p0"));
        assert_eq!(packed(), [0, 0, 1, 1, 1]);
    }

    #[test]
    fn without_packing_nothing_changes() {
        let warm = Warm::with_most(None, 1, 1);
        let all: Vec<_> = (0..10).map(|number| held(&warm, &format!("p{number}"))).collect();
        assert!(all.iter().all(|held| !held.is_packed()));
    }
}
