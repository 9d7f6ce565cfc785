//! ConfigMaps and Secrets that pods of this node refer to, fetched one by one.
//!
//! A node may only read what its pods use, so there is no watch on all of them. Invariant: where the API server is away,
//! the last known state is used; "does not exist" is only ever said by the API server.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FORGET_AFTER: Duration = Duration::from_secs(600);
const BOUND: usize = 4096;

/// Why an object could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// The resource in lower case, such as `configmap`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The API server did not answer, or refused.
    #[error("failed to get {kind} \"{name}\": {message}")]
    Unavailable {
        /// The resource in lower case.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What happened.
        message: String,
    },
}

impl ObjectError {
    /// Whether the API server said that there is none.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

struct Entry<K> {
    object: Option<Arc<K>>,
    fetched: Instant,
    used: Instant,
}

struct Cache<K> {
    kind: &'static str,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

impl<K> Cache<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    fn new(kind: &'static str) -> Self {
        Self { kind, entries: Mutex::default() }
    }

    async fn get(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        max_age: Duration,
    ) -> Result<Arc<K>, ObjectError> {
        let key = (namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        if let Some(entry) = self.entries.lock().get_mut(&key) {
            entry.used = now;
            if now.duration_since(entry.fetched) <= max_age
                && let Some(object) = &entry.object
            {
                return Ok(object.clone());
            }
        }
        let api = Api::<K>::namespaced(client.clone(), namespace);
        match tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(object)) => {
                let object = object.map(Arc::new);
                self.put(key, object.clone(), now);
                object.ok_or_else(|| ObjectError::NotFound { kind: self.kind, name: name.to_owned() })
            }
            Ok(Err(error)) => self.last_known(&key, error.to_string()),
            Err(_) => self.last_known(&key, "timed out waiting for the API server".to_owned()),
        }
    }

    fn last_known(&self, key: &(String, String), message: String) -> Result<Arc<K>, ObjectError> {
        let known = self.entries.lock().get(key).and_then(|entry| entry.object.clone());
        known.ok_or_else(|| ObjectError::Unavailable { kind: self.kind, name: key.1.clone(), message })
    }

    fn put(&self, key: (String, String), object: Option<Arc<K>>, now: Instant) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| now.duration_since(entry.used) < FORGET_AFTER);
        if entries.len() < BOUND || entries.contains_key(&key) {
            entries.insert(key, Entry { object, fetched: now, used: now });
        }
    }
}

/// The objects of all pods of this node.
pub struct Objects {
    client: Client,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

impl Objects {
    /// Nothing is fetched before it is asked for.
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Cache::new("configmap"), secrets: Cache::new("secret") }
    }

    /// The client that fetches them.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A ConfigMap that was fetched at most `max_age` ago.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
    ) -> Result<Arc<ConfigMap>, ObjectError> {
        self.config_maps.get(&self.client, namespace, name, max_age).await
    }

    /// A Secret that was fetched at most `max_age` ago.
    pub async fn secret(&self, namespace: &str, name: &str, max_age: Duration) -> Result<Arc<Secret>, ObjectError> {
        self.secrets.get(&self.client, namespace, name, max_age).await
    }
}
