//! Stores in an etcd of a test's own, and what goes into them.

use std::sync::Arc;

pub(crate) use kedge_etcd_server::{DEADLINE, Etcd, skipped_without_etcd};
use kedge_store::{Key, Store, Template, Transaction, Write};
use kedge_store_etcd::{EtcdStore, Options};

/// Stores over the members of an etcd.
pub(crate) trait Stores {
    fn options(&self) -> Options;

    async fn open(&self) -> Arc<EtcdStore>;
}

impl Stores for Etcd {
    fn options(&self) -> Options {
        let within = String::new();
        Options { endpoints: self.endpoints(), within, prefix: "/test".to_owned(), ..Options::default() }
    }

    async fn open(&self) -> Arc<EtcdStore> {
        Arc::new(EtcdStore::open(self.options()).await.unwrap())
    }
}

pub(crate) fn put(key: &str, value: &str) -> Transaction {
    let value = Template { bytes: value.to_owned().into(), splice_at: None };
    Transaction { writes: vec![Write::Put { key: Key::new(key), value, ttl: None }], ..Transaction::default() }
}

/// Commits, as often as it takes; only for writes that may happen twice.
pub(crate) async fn put_until_done(store: &dyn Store, key: &str, value: &str) {
    let trying = async { while store.commit(put(key, value)).await.is_err() {} };
    tokio::time::timeout(DEADLINE, trying).await.expect("commits go through again");
}

/// The value of a key, as soon as there is an answer.
pub(crate) async fn read_until_answered(store: &dyn Store, key: &str) -> Option<String> {
    let key = Key::new(key);
    let trying = async {
        loop {
            if let Ok(record) = store.get(&key).await {
                return record.map(|record| String::from_utf8_lossy(&record.value).into_owned());
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.expect("reads are answered again")
}
