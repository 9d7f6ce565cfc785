//! The store in memory passes the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kedge_meta::{Clock, ManualClock, SystemClock};
use kedge_store::{Backend, HistoryLimits, MemoryStore, Store};

struct Memory {
    clock: ManualClock,
    store: Option<MemoryStore>,
}

#[async_trait]
impl Backend for Memory {
    async fn open(&mut self, limits: HistoryLimits) -> Arc<dyn Store> {
        let store = MemoryStore::with(limits, self.clock.clone());
        self.store = Some(store.clone());
        Arc::new(store)
    }

    fn durable(&self) -> bool {
        false
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.store.as_ref().expect("the store is open").expire();
    }
}

fn fresh() -> Memory {
    Memory { clock: ManualClock::new(SystemClock.now()), store: None }
}

kedge_store::conformance!(fresh());
