//! What a controller wrote and its cache has not shown yet. Until it has, deciding from the cache would create or delete
//! twice.
//!
//! Each write is remembered with the object's uid and looked up in the cache when it matters, so that nothing is counted
//! and an event that was coalesced away can't leave a count behind. Invariant: an expectation is fulfilled by the cache
//! or forgotten after [`PATIENCE`].

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kedge_client::Informer;
use kedge_meta::ObjectKey;
use kube::Resource;
use parking_lot::Mutex;

/// How long the cache may lag. An object that came and went before the cache saw it is given up after this.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// The object will be there.
    Created,
    /// The object will be gone or terminating.
    Deleted,
    /// The object will be there at least at this resource version.
    Updated(String),
}

#[derive(Debug, Clone)]
struct Expected {
    object: ObjectKey,
    uid: String,
    effect: Effect,
    since: Timestamp,
}

/// Expectations of a controller about the objects it writes, by the key it reconciles.
#[derive(Debug, Default)]
pub(crate) struct Expectations(Mutex<HashMap<ObjectKey, Vec<Expected>>>);

impl Expectations {
    /// The object with this metadata was created for `key`.
    pub(crate) fn created(&self, key: &ObjectKey, object: &ObjectMeta, now: Timestamp) {
        self.expect(key, object, Effect::Created, now);
    }

    /// The object with this metadata was deleted for `key`.
    pub(crate) fn deleted(&self, key: &ObjectKey, object: &ObjectMeta, now: Timestamp) {
        self.expect(key, object, Effect::Deleted, now);
    }

    /// The object with this metadata, as the API answered, was updated for `key`.
    pub(crate) fn updated(&self, key: &ObjectKey, object: &ObjectMeta, now: Timestamp) {
        let version = object.resource_version.clone().unwrap_or_default();
        self.expect(key, object, Effect::Updated(version), now);
    }

    /// `key` is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// `None` where the cache shows every write for `key`; else how long to wait at most.
    pub(crate) fn lag<K: Resource + Clone>(
        &self,
        key: &ObjectKey,
        cache: &Informer<K>,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut expected = self.0.lock();
        let open = expected.get_mut(key)?;
        open.retain(|expected| {
            let cached = cache.get(&expected.object);
            now.duration_since(expected.since) < PATIENCE
                && !is_fulfilled(expected, cached.as_deref().map(|object| object.meta()))
        });
        let oldest = open.iter().map(|expected| expected.since).min();
        match oldest {
            None => {
                expected.remove(key);
                None
            }
            Some(oldest) => {
                let left = PATIENCE - now.duration_since(oldest);
                Some(Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(10)))
            }
        }
    }

    fn expect(&self, key: &ObjectKey, object: &ObjectMeta, effect: Effect, now: Timestamp) {
        let expected = Expected {
            object: ObjectKey::new(
                object.namespace.clone().unwrap_or_default(),
                object.name.clone().unwrap_or_default(),
            ),
            uid: object.uid.clone().unwrap_or_default(),
            effect,
            since: now,
        };
        self.0.lock().entry(key.clone()).or_default().push(expected);
    }
}

fn is_fulfilled(expected: &Expected, cached: Option<&ObjectMeta>) -> bool {
    let same = cached.filter(|cached| cached.uid.as_deref().unwrap_or_default() == expected.uid);
    match &expected.effect {
        Effect::Created => same.is_some(),
        Effect::Deleted => same.is_none_or(|cached| cached.deletion_timestamp.is_some()),
        Effect::Updated(version) => same.is_none_or(|cached| {
            let number = |version: &str| version.parse::<u64>().ok();
            let cached = cached.resource_version.as_deref().unwrap_or_default();
            cached == version || number(cached).zip(number(version)).is_some_and(|(cached, written)| cached >= written)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn pod(name: &str, uid: &str, version: &str, terminating: bool) -> Pod {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            deletion_timestamp: terminating.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        Pod { metadata, ..Pod::default() }
    }

    #[test]
    fn writes_are_expected_until_the_cache_shows_them() {
        let key = ObjectKey::new("default", "web");
        let now = Timestamp::UNIX_EPOCH;
        let written = pod("a", "1", "20", false).metadata;
        type Expect = fn(&Expectations, &ObjectKey, &ObjectMeta, Timestamp);
        let check = |expect: Expect, cached: &[Pod], lags: bool| {
            let expectations = Expectations::default();
            expect(&expectations, &key, &written, now);
            let lag = expectations.lag(&key, &Informer::fixed(cached.to_vec()), now);
            assert_eq!(lag.is_some(), lags, "{cached:?}");
        };
        let there = |version| [pod("a", "1", version, false)];
        check(Expectations::created, &[], true);
        check(Expectations::created, &there("20"), false);
        check(Expectations::created, &[pod("a", "2", "30", false)], true);
        check(Expectations::deleted, &[], false);
        check(Expectations::deleted, &there("20"), true);
        check(Expectations::deleted, &[pod("a", "1", "21", true)], false);
        check(Expectations::deleted, &[pod("a", "2", "30", false)], false);
        check(Expectations::updated, &there("9"), true);
        check(Expectations::updated, &there("20"), false);
        check(Expectations::updated, &there("100"), false);
        check(Expectations::updated, &[], false);
    }

    #[test]
    fn patience_ends() {
        let key = ObjectKey::new("default", "web");
        let expectations = Expectations::default();
        expectations.created(&key, &pod("a", "1", "20", false).metadata, Timestamp::UNIX_EPOCH);
        let empty = Informer::<Pod>::fixed([]);
        let at = |seconds| expectations.lag(&key, &empty, Timestamp::from_second(seconds).unwrap());
        assert_eq!(at(10), Some(Duration::from_secs(20)));
        assert_eq!(at(30), None);
    }
}
