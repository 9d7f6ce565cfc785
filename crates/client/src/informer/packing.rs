//! How a kind's objects are packed: as JSON, of which only what differs from a few other objects of the kind is kept.
//!
//! Invariant: what is unpacked is what was packed; an object keeps the pattern that it was packed with.

use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A pattern's length at most, in bytes: a handful of objects. Each packing reads it once.
const PATTERN: usize = 16 << 10;
/// So many objects are packed with one pattern, so that each pays little for it, and new workloads get into one soon.
const RENEWED_AFTER: u32 = 1024;
/// Of the objects packed with a pattern, the next one has each so manieth.
const SAMPLED: u32 = 128;

/// Packs the objects of a kind.
pub(super) struct Packing<K> {
    to_json: fn(&K) -> Option<Vec<u8>>,
    from_json: fn(&[u8]) -> Option<K>,
    pattern: Mutex<Pattern>,
}

/// What objects are compared with, and what they will be.
#[derive(Default)]
struct Pattern {
    text: Arc<[u8]>,
    next: Vec<u8>,
    packed: u32,
}

/// An object, packed.
pub(super) struct Packed<K> {
    bytes: Box<[u8]>,
    /// Of the JSON, in bytes.
    length: usize,
    pattern: Arc<[u8]>,
    from_json: fn(&[u8]) -> Option<K>,
}

impl<K: Serialize + DeserializeOwned> Packing<K> {
    pub(super) fn of_json() -> Self {
        Self {
            to_json: |object| serde_json::to_vec(object).ok(),
            from_json: |bytes| serde_json::from_slice(bytes).ok(),
            pattern: Mutex::default(),
        }
    }
}

impl<K> Packing<K> {
    /// The object packed; `None` for one that cannot be written.
    pub(super) fn pack(&self, object: &K) -> Option<Packed<K>> {
        let json = (self.to_json)(object)?;
        let pattern = self.pattern.lock().with(&json);
        let bytes = lz4_flex::block::compress_with_dict(&json, &pattern).into_boxed_slice();
        Some(Packed { bytes, length: json.len(), pattern, from_json: self.from_json })
    }
}

impl<K> Packed<K> {
    /// The object as it was.
    pub(super) fn object(&self) -> Arc<K> {
        let json = lz4_flex::block::decompress_with_dict(&self.bytes, self.length, &self.pattern);
        let object = json.ok().and_then(|json| (self.from_json)(&json));
        Arc::new(object.expect("an object that was packed can be unpacked"))
    }
}

impl Pattern {
    /// The pattern for an object, which may become part of the next one.
    fn with(&mut self, json: &[u8]) -> Arc<[u8]> {
        if self.text.is_empty() {
            self.text = json[json.len().saturating_sub(PATTERN)..].into();
        }
        if self.packed.is_multiple_of(SAMPLED) && self.next.len() + json.len() <= PATTERN {
            self.next.extend_from_slice(json);
        }
        self.packed += 1;
        if self.packed == RENEWED_AFTER {
            self.packed = 0;
            if !self.next.is_empty() {
                self.text = std::mem::take(&mut self.next).into();
            }
        }
        Arc::clone(&self.text)
    }
}

impl<K> Debug for Packed<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.bytes.len(), self.length)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(number: usize, app: &str) -> Pod {
        let (uid, name) = (format!("{:032x}", number * 7919), format!("{app}-{number}"));
        let value = json!({
            "metadata": {"name": name, "namespace": "d", "uid": uid, "labels": {"app": app},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": "r"}]},
            "spec": {"containers": [{"name": app, "image": format!("registry.example/{app}:1"),
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
                "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent"}],
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]},
            "status": {"phase": "Running", "podIP": format!("10.244.{}.{}", number / 256, number % 256)},
        });
        serde_json::from_value(value).expect("it is a pod")
    }

    #[test]
    fn each_object_comes_back_whatever_pattern_it_had() {
        let packing = Packing::<Pod>::of_json();
        let pods: Vec<Pod> = (0..3000).map(|number| pod(number, ["web", "db", "cache"][number % 3])).collect();
        let packed: Vec<Packed<Pod>> = pods.iter().map(|pod| packing.pack(pod).expect("it can be written")).collect();
        assert!(pods.iter().zip(&packed).all(|(pod, packed)| *packed.object() == *pod));
        let late = &packed[2500..];
        let (bytes, plain) = late.iter().fold((0, 0), |sum, one| (sum.0 + one.bytes.len(), sum.1 + one.length));
        assert!(bytes * 3 < plain, "{bytes} of {plain}");
        let mut patterns: Vec<*const u8> = packed.iter().map(|packed| packed.pattern.as_ptr()).collect();
        patterns.dedup();
        assert_eq!(patterns.len(), 1 + pods.len() / RENEWED_AFTER as usize);
        assert!(packed.iter().all(|packed| packed.pattern.len() <= PATTERN));
    }

    #[test]
    fn an_object_longer_than_a_pattern_is_packed() {
        let packing = Packing::<Pod>::of_json();
        for number in 0..3 {
            let mut pod = pod(number, "web");
            let note = format!("{number:0>9}").repeat(PATTERN / 4);
            pod.metadata.annotations = Some([("note".to_owned(), note)].into());
            assert_eq!(*packing.pack(&pod).expect("it can be written").object(), pod);
        }
    }
}
