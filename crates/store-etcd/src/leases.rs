//! Leases for keys with a time to live. Keys that are written soon after each other with the same time share one.
//!
//! Invariant: a key lives at least as long as it was asked to, and longer at most by a twentieth or a minute, plus a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::failure::Failure;
use crate::rpc::{LEASE_GRANT, LeaseGrantRequest, LeaseGrantResponse};
use crate::servers::{Effect, Servers};

/// For how long a lease is given to further keys at most.
const LONGEST_SHARED: Duration = Duration::from_secs(60);
/// Expiring a lease deletes all its keys in one commit.
const MOST_KEYS: usize = 500;

/// The leases that are given out now, by time to live.
#[derive(Default)]
pub(crate) struct Leases {
    by_seconds: Mutex<HashMap<u64, Shared>>,
}

struct Shared {
    id: i64,
    shared_until: Instant,
    keys: usize,
}

impl Leases {
    /// A lease under which a key lives `ttl` from now.
    pub(crate) async fn ensure(
        &self,
        servers: &Arc<Servers>,
        ttl: Duration,
        timeout: Duration,
    ) -> Result<i64, Failure> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        if let Some(id) = self.share(seconds, Instant::now()) {
            return Ok(id);
        }
        let shared_for = (Duration::from_secs(seconds) / 20).min(LONGEST_SHARED);
        let shared_for = Duration::from_secs(shared_for.as_secs());
        // Before the grant: the time it takes is the key's.
        let now = Instant::now();
        let ttl = i64::try_from(seconds + shared_for.as_secs()).unwrap_or(i64::MAX);
        // A grant that nobody hears of expires by itself.
        let grant = LeaseGrantRequest { ttl: ttl.max(1) };
        let granted: LeaseGrantResponse = servers.call(LEASE_GRANT, grant, Effect::None, timeout).await?;
        let mut by_seconds = self.by_seconds.lock();
        by_seconds.retain(|_, shared| shared.shared_until > now);
        by_seconds.insert(seconds, Shared { id: granted.id, shared_until: now + shared_for, keys: 1 });
        Ok(granted.id)
    }

    fn share(&self, seconds: u64, now: Instant) -> Option<i64> {
        let mut by_seconds = self.by_seconds.lock();
        let shared =
            by_seconds.get_mut(&seconds).filter(|shared| shared.shared_until > now && shared.keys < MOST_KEYS)?;
        shared.keys += 1;
        Some(shared.id)
    }

    /// etcd does not know one of them: none is given out again.
    pub(crate) fn forget(&self) {
        self.by_seconds.lock().clear();
    }
}
