//! The webhooks of all configurations of a kind, as new as the store.
//!
//! Invariant: whoever asks sees every configuration that was acknowledged before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures::FutureExt;
use kedge_store::{ListRequest, Store, StoreError, Watch};
use kedge_webhooks::Hook;
use serde_json::Value;
use tokio::sync::Mutex;

/// How many changes are taken from the store at once.
const BATCH: usize = 256;

/// The webhooks of one kind of configuration, in the order in which they are asked.
pub(super) struct Configurations {
    prefix: &'static str,
    seen: AtomicU64,
    hooks: ArcSwap<Vec<Hook>>,
    watch: Mutex<Option<Box<dyn Watch>>>,
}

impl Configurations {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix, seen: AtomicU64::new(0), hooks: ArcSwap::default(), watch: Mutex::default() }
    }

    /// Configurations by name, and within each its webhooks in their order.
    pub(super) async fn current(&self, store: &dyn Store) -> Result<Arc<Vec<Hook>>, StoreError> {
        let revision = store.revision().0;
        if self.seen.load(Ordering::Acquire) >= revision {
            return Ok(self.hooks.load_full());
        }
        let mut watch = self.watch.lock().await;
        if !watch.as_mut().is_some_and(is_quiet) {
            self.reload(store, &mut watch).await?;
        }
        self.seen.fetch_max(revision, Ordering::AcqRel);
        Ok(self.hooks.load_full())
    }

    async fn reload(&self, store: &dyn Store, watch: &mut Option<Box<dyn Watch>>) -> Result<(), StoreError> {
        let page = store.list(ListRequest { prefix: self.prefix.to_owned(), ..ListRequest::default() }).await?;
        let mut hooks = Vec::new();
        for record in &page.records {
            match serde_json::from_slice::<Value>(&record.value) {
                Ok(configuration) => hooks.extend(Hook::read_all(&configuration)),
                Err(error) => tracing::error!(key = record.key.as_str(), %error, "a stored object cannot be read"),
            }
        }
        *watch = Some(store.watch(self.prefix, page.revision)?);
        self.hooks.store(Arc::new(hooks));
        Ok(())
    }
}

/// Whether nothing has happened since the last look.
fn is_quiet(watch: &mut Box<dyn Watch>) -> bool {
    match watch.next(BATCH).now_or_never() {
        None => true,
        Some(Ok(changes)) => changes.is_empty(),
        Some(Err(_)) => false,
    }
}
