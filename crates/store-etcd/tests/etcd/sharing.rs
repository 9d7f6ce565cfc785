//! Two stores over one etcd, and strangers in it: what one is told the other shows.

use std::time::Duration;

use kedge_store::{
    CommitError, Condition, Durability, Expect, Key, ListRequest, Store, StoreError, Template, Transaction, Write,
};
use kedge_store_etcd::{EtcdStore, Options};

use crate::harness::{DEADLINE, Etcd, Stores, put, skipped_without_etcd};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_show_each_others_commits_at_once() {
    if skipped_without_etcd("two_stores_show_each_others_commits_at_once") {
        return;
    }
    let etcd = Etcd::start();
    let (one, other) = (etcd.open().await, etcd.open().await);
    let mut watch = other.watch("/", other.revision()).unwrap();
    for round in 0..200 {
        let committed = one.commit(put("/a", &round.to_string())).await.unwrap();
        let record = other.get(&Key::new("/a")).await.unwrap().unwrap();
        assert_eq!((&record, record.modified), (&committed.records[0], committed.revision));
        let page = other.list(ListRequest { prefix: "/".to_owned(), ..ListRequest::default() }).await.unwrap();
        // Not equal: where the watch is slow, the other writes a key of its own to prove that nothing is missing.
        assert!(page.revision >= committed.revision);
        let at = Some(committed.revision);
        other.list(ListRequest { at, ..ListRequest::default() }).await.expect("a page token of the one is good here");
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.extend(tokio::time::timeout(DEADLINE, watch.next(50)).await.unwrap().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_stores_one_wins() {
    if skipped_without_etcd("of_two_stores_one_wins") {
        return;
    }
    let etcd = Etcd::start();
    let stores = [etcd.open().await, etcd.open().await];
    for round in 0..50 {
        let key = Key::new(format!("/taken/{round}"));
        let take = |store: usize| {
            let conditions = vec![Condition { key: key.clone(), expect: Expect::Absent }];
            let value = Template { bytes: store.to_string().into(), splice_at: None };
            let writes = vec![Write::Put { key: key.clone(), value, ttl: None }];
            stores[store].commit(Transaction { conditions, writes, durability: Durability::Durable })
        };
        let (first, second) = tokio::join!(take(0), take(1));
        let winner = usize::from(first.is_err());
        let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
        let Err(CommitError::Conflict { current: Some(current), .. }) = lost else { panic!("both won {round}") };
        assert_eq!(current.value, winner.to_string());
        assert_eq!(won.unwrap().records[0], *current);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_move_the_revision_and_nothing_else() {
    if skipped_without_etcd("strangers_move_the_revision_and_nothing_else") {
        return;
    }
    let etcd = Etcd::start();
    let store = etcd.open().await;
    store.commit(put("/a", "1")).await.unwrap();
    for round in 0..5 {
        etcd.etcdctl(&["put", "/stranger", &round.to_string()]);
        let before = store.revision();
        let page = store.list(ListRequest::default()).await.unwrap();
        assert!(page.revision > before, "it is proven that nothing of ours is missing");
        assert_eq!(page.records.len(), 1);
    }
    // What somebody writes below our root is shown as it is, without a revision in it.
    etcd.etcdctl(&["put", "/test/b", "by hand"]);
    let record = store.get(&Key::new("/b")).await.unwrap().unwrap();
    assert_eq!((&record.value[..], record.splice_at), (&b"by hand"[..], None));
    // And what we write can be read by others.
    let written = etcd.etcdctl(&["get", "/test/a", "--print-value-only"]);
    assert_eq!(written.trim_end(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_with_a_time_to_live_go_by_themselves() {
    if skipped_without_etcd("keys_with_a_time_to_live_go_by_themselves") {
        return;
    }
    let etcd = Etcd::start();
    let store = etcd.open().await;
    let mortal = |key: &str, seconds| {
        let value = Template { bytes: "x".into(), splice_at: None };
        let writes = vec![Write::Put { key: Key::new(key), value, ttl: Some(Duration::from_secs(seconds)) }];
        store.commit(Transaction { writes, ..Transaction::default() })
    };
    mortal("/short", 2).await.unwrap();
    for at in 0..20 {
        mortal(&format!("/long/{at}"), 600).await.unwrap();
    }
    let leases = etcd.etcdctl(&["lease", "list"]);
    assert!(leases.contains("found 2 leases"), "keys share a lease: {leases}");
    let mut watch = store.watch("/short", store.revision()).unwrap();
    let gone = tokio::time::timeout(DEADLINE, watch.next(1)).await.expect("it goes").unwrap();
    assert_eq!(gone[0].kind, kedge_store::ChangeKind::Deleted);
    assert_eq!(store.count("/long/").await.unwrap(), 20);
    // A lease that somebody revoked is replaced.
    let mut ids = leases.lines().skip(1);
    let id = ids.find(|line| etcd.etcdctl(&["lease", "timetolive", line]).contains("TTL(630s)"));
    etcd.etcdctl(&["lease", "revoke", id.expect("the shared lease is there")]);
    mortal("/long/again", 600).await.expect("a new lease is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_by_one_of_them() {
    if skipped_without_etcd("history_is_compacted_by_one_of_them") {
        return;
    }
    let etcd = Etcd::start();
    let compaction_interval = Some(Duration::from_millis(200));
    let options = || Options { compaction_interval, ..etcd.options() };
    let (one, other) = (EtcdStore::open(options()).await.unwrap(), EtcdStore::open(options()).await.unwrap());
    let first = one.commit(put("/a", "0")).await.unwrap().revision;
    let compacted = async {
        loop {
            one.commit(put("/a", "x")).await.unwrap();
            let late = EtcdStore::open(Options { compaction_interval: None, ..etcd.options() }).await.unwrap();
            if late.oldest() > first {
                return late;
            }
        }
    };
    let late = tokio::time::timeout(DEADLINE, compacted).await.expect("etcd is compacted");
    assert!(matches!(late.watch("/", first), Err(StoreError::Compacted { .. })));
    assert!(one.watch("/", first).is_ok() && other.watch("/", first).is_ok(), "who was there remembers");
    assert_eq!(late.get(&Key::new("/a")).await.unwrap().unwrap().created, first);
}
