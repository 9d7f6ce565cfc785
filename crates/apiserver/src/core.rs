//! What all requests share: the store, the registry, and everything that is kept in memory beside them.
//!
//! Holds no behaviour of a verb. Invariant: what is kept here can be rebuilt from the store.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kedge_audit::Audit;
use kedge_auth::TokenKeys;
use kedge_meta::{ApiStatus, Clock, ComponentStatus, StatusBoard};
use kedge_store::{Record, Store};
use rand::Rng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admission::Chain;
use crate::aggregation::Extensions;
use crate::authenticate::VerifiedTokens;
use crate::config::Config;
use crate::documents::Documents;
use crate::flow::Flow;
use crate::front_proxy::FrontProxy;
use crate::label_index::LabelIndexes;
use crate::local::LocalApis;
use crate::metrics::Metrics;
use crate::registry::{Registry, Resource};
use crate::reply::store_error;

/// The server's insides.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) status: ComponentStatus,
    pub(crate) board: StatusBoard,
    pub(crate) token_keys: ArcSwap<TokenKeys>,
    pub(crate) front_proxy: Option<FrontProxy>,
    pub(crate) kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) registry: ArcSwap<Registry>,
    pub(crate) access: Access,
    pub(crate) admission: Chain,
    pub(crate) verified_tokens: VerifiedTokens,
    pub(crate) indexes: LabelIndexes,
    pub(crate) flow: Flow,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) metrics: Metrics,
    pub(crate) documents: Documents,
    pub(crate) local: LocalApis,
    pub(crate) extensions: Extensions,
    pub(crate) started: jiff::Timestamp,
    /// Ends watches and streams.
    pub(crate) shutdown: CancellationToken,
}

impl Core {
    /// An object's record, or upstream's 404.
    pub(crate) async fn record(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Record, ApiStatus> {
        let record = self.find(resource, namespace, name).await?;
        record.ok_or_else(|| ApiStatus::not_found(&resource.group_resource, name))
    }

    /// An object's record, if it is there.
    pub(crate) async fn find(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Record>, ApiStatus> {
        self.store.get(&resource.key(namespace, name)).await.map_err(store_error)
    }

    /// A built-in object as it is stored, for code that needs another kind than the one it is called for.
    pub(crate) async fn object(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Record, Value)>, ApiStatus> {
        let registry = self.registry.load();
        let Some(resource) = registry.storage(group, resource) else { return Ok(None) };
        let Some(record) = self.find(resource, namespace, name).await? else { return Ok(None) };
        let object = decode(&record)?;
        Ok(Some((record, object)))
    }
}

/// A stored object in memory.
pub(crate) fn decode(record: &Record) -> Result<Value, ApiStatus> {
    serde_json::from_slice(&record.value).map_err(|error| {
        tracing::error!(key = record.key.as_str(), %error, "a stored object cannot be read");
        ApiStatus::internal(format!("the stored object cannot be read: {error}"))
    })
}

/// A new uid.
pub(crate) fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// `length` random characters in upstream's alphabet.
pub(crate) fn random_suffix(length: usize) -> String {
    let mut random = vec![0u8; length];
    rand::rng().fill(&mut random[..]);
    kedge_meta::random_suffix(&random)
}
