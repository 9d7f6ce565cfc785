//! How full the volumes are that looking at may hang: claims, CSI and NFS volumes, measured beside everything else.
//!
//! Invariants: at most one look at each volume is under way; what is known is at hand at once, and is looked at again after
//! a minute, upstream's period.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_stats::{FsStats, file_system_stats};
use kedge_volumes::VolumeUsage;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::outside;

const PERIOD: Duration = Duration::from_secs(60);

/// By pod uid and volume name.
type Key = (String, String);

/// What is known about each volume.
#[derive(Debug, Default)]
pub(crate) struct VolumeUse(Mutex<HashMap<Key, Known>>);

#[derive(Debug, Default)]
struct Known {
    stats: Option<FsStats>,
    looked: Option<Instant>,
    /// A look that has not come back.
    pending: bool,
}

impl Known {
    /// Whether to look now; notes that somebody does.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = !self.pending && self.looked.is_none_or(|at| now.duration_since(at) >= PERIOD);
        if due {
            self.pending = true;
            self.looked = Some(now);
        }
        due
    }
}

impl VolumeUse {
    fn set(&self, key: &Key, stats: Option<FsStats>) {
        // A pod that has ended meanwhile is not remembered again.
        if let Some(known) = self.0.lock().get_mut(key) {
            known.pending = false;
            known.stats = stats.or(known.stats.take());
        }
    }

    /// Forgets the volumes of other pods.
    pub(crate) fn forget_others(&self, keep: impl Fn(&str) -> bool) {
        self.0.lock().retain(|(uid, _), _| keep(uid));
    }
}

/// What is known about a volume; starts another look where that is old. Does not block.
pub(crate) fn known(agent: &Arc<Agent>, uid: &str, volume: &str, path: &Path) -> Option<FsStats> {
    let key = (uid.to_owned(), volume.to_owned());
    let mut all = agent.volume_use.0.lock();
    let known = all.entry(key.clone()).or_default();
    let stats = known.stats.clone();
    if known.is_due(Instant::now()) {
        tokio::spawn(look(agent.clone(), key, path.to_owned()));
    }
    stats
}

async fn look(agent: Arc<Agent>, key: Key, path: PathBuf) {
    let looker = agent.clone();
    let looked = outside::spawn(move || async move { measure(&looker, &path).await });
    agent.volume_use.set(&key, looked.await.unwrap_or_default());
}

async fn measure(agent: &Agent, path: &Path) -> Option<FsStats> {
    match agent.volumes.usage_by_driver(path).await {
        None => file_system_stats(path, agent.now()),
        Some(Ok(usage)) => Some(stats(usage, agent.now())),
        Some(Err(error)) => {
            tracing::debug!(path = %path.display(), error, "a driver does not say how full a volume is");
            None
        }
    }
}

fn stats(usage: VolumeUsage, time: jiff::Timestamp) -> FsStats {
    FsStats {
        time,
        available_bytes: usage.available_bytes,
        capacity_bytes: usage.capacity_bytes,
        used_bytes: usage.used_bytes,
        inodes_free: usage.inodes_free,
        inodes: usage.inodes,
        inodes_used: usage.inodes_used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_looked_at_once_a_minute_and_by_one() {
        let table = VolumeUse::default();
        let key = ("u".to_owned(), "v".to_owned());
        let start = Instant::now();
        let due = |periods: u32| table.0.lock().entry(key.clone()).or_default().is_due(start + PERIOD * periods);
        assert!(due(0) && !due(0), "one look at a time");
        assert!(!due(2), "it hangs");
        let known = FsStats { used_bytes: Some(7), ..FsStats::default() };
        table.set(&key, Some(known.clone()));
        assert!(due(2), "the last look began long ago");
        table.set(&key, None);
        assert_eq!(table.0.lock()[&key].stats, Some(known), "what was known stays");
        assert!(!due(2));
        table.forget_others(|uid| uid == "other");
        table.set(&key, None);
        assert!(table.0.lock().is_empty());
    }
}
