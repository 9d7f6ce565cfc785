//! The store in an etcd passes the conformance suite of the port.
//!
//! Time is the suite's, so leases do not run out by themselves here: when the suite's clock has passed one, the test revokes
//! it, which is what etcd does when a lease runs out. That etcd does it in time is shown in `sharing.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kedge_meta::{Clock, ManualClock, SystemClock};
use kedge_store::{Backend, HistoryLimits, Store};
use kedge_store_etcd::{EtcdStore, Options};
use parking_lot::Mutex;

use crate::harness::{Etcd, Stores, skipped_without_etcd};

struct InEtcd {
    etcd: Etcd,
    clock: ManualClock,
    /// What was advanced by so far, and each lease with when it was first seen.
    leases: Mutex<(Duration, HashMap<String, Duration>)>,
}

#[async_trait]
impl Backend for InEtcd {
    async fn open(&mut self, limits: HistoryLimits) -> Arc<dyn Store> {
        let clock = Arc::new(self.clock.clone());
        Arc::new(EtcdStore::open(Options { limits, clock, ..self.etcd.options() }).await.unwrap())
    }

    fn durable(&self) -> bool {
        true
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        let mut leases = self.leases.lock();
        let (now, listed) = (leases.0, self.etcd.etcdctl(&["lease", "list"]));
        leases.0 += by;
        for id in listed.lines().filter(|line| !line.contains("found")) {
            let begun = *leases.1.entry(id.to_owned()).or_insert(now);
            let told = self.etcd.etcdctl(&["lease", "timetolive", id, "-w", "json"]);
            if begun + granted(&told) <= leases.0 {
                self.etcd.etcdctl(&["lease", "revoke", id]);
            }
        }
    }
}

/// The time that a lease was granted for.
fn granted(told: &str) -> Duration {
    let (_, rest) = told.split_once("\"granted-ttl\":").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Duration::from_secs(digits.parse().unwrap())
}

fn fresh() -> InEtcd {
    InEtcd { etcd: Etcd::start(), clock: ManualClock::new(SystemClock.now()), leases: Mutex::default() }
}

kedge_store::conformance!(fresh(), skipped_without_etcd);
