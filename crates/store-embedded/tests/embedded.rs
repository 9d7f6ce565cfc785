//! The embedded store passes the conformance suite.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kedge_meta::{Clock, ManualClock, SystemClock};
use kedge_store::{Backend, HistoryLimits, Store};
use kedge_store_embedded::{EmbeddedStore, Options};
use tempfile::TempDir;

struct Embedded {
    clock: ManualClock,
    directory: TempDir,
    store: Option<std::sync::Weak<EmbeddedStore>>,
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&mut self, limits: HistoryLimits) -> Arc<dyn Store> {
        let options = Options { limits, clock: Arc::new(self.clock.clone()), ..Options::default() };
        let store = Arc::new(EmbeddedStore::open(self.directory.path(), options).unwrap());
        self.store = Some(Arc::downgrade(&store));
        store
    }

    fn durable(&self) -> bool {
        true
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.store.as_ref().unwrap().upgrade().unwrap().expire();
    }
}

fn fresh() -> Embedded {
    Embedded { clock: ManualClock::new(SystemClock.now()), directory: TempDir::new().unwrap(), store: None }
}

kedge_store::conformance!(fresh());
