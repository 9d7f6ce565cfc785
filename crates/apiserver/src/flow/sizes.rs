//! How many objects lie under a prefix and how large they are, as known lately.
//!
//! For estimates only. Bounded in number, and in age.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kedge_store::{ListRequest, Store};
use parking_lot::Mutex;

/// What is older is looked at again.
const AGE: Duration = Duration::from_secs(60);

/// So many objects speak for all.
const SAMPLE: usize = 100;

/// More prefixes than this are not remembered.
const MOST: usize = 4096;

/// Count and average size by prefix.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<String, (Instant, u64, u64)>>);

impl Sizes {
    /// How many there are, and their average size in bytes.
    pub(super) async fn of(&self, store: &dyn Store, prefix: &str) -> Option<(u64, u64)> {
        if let Some((when, count, size)) = self.0.lock().get(prefix).copied()
            && when.elapsed() < AGE
        {
            return Some((count, size));
        }
        // What is visible here needs no question to another server.
        let at = Some(store.revision());
        let request = ListRequest { prefix: prefix.to_owned(), limit: Some(SAMPLE), at, ..ListRequest::default() };
        let page = store.list(request).await.ok()?;
        let count = (page.records.len() + page.remaining) as u64;
        let bytes: usize = page.records.iter().map(|record| record.value.len()).sum();
        let size = bytes.checked_div(page.records.len()).unwrap_or(0) as u64;
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(prefix.to_owned(), (Instant::now(), count, size));
        Some((count, size))
    }
}
