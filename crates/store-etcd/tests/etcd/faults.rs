//! What goes wrong with an etcd, and what the store makes of it: nothing acknowledged is lost, nothing hangs, and errors say
//! what to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_store::{CommitError, Key, ListRequest, Revision, Store, StoreError};
use kedge_store_etcd::{EtcdError, EtcdStore, Options};

use crate::harness::{DEADLINE, Etcd, Stores, put, put_until_done, read_until_answered, skipped_without_etcd};

/// Writes counters until told to end; gives the last value that was acknowledged and the last that was tried.
async fn load(store: Arc<EtcdStore>, key: String, end: tokio_util::sync::CancellationToken) -> (u64, u64) {
    let (mut acknowledged, mut tried) = (0, 0);
    while !end.is_cancelled() {
        tried += 1;
        match store.commit(put(&key, &tried.to_string())).await {
            Ok(_) => acknowledged = tried,
            // Never tried again as if nothing had happened: the next value follows.
            Err(CommitError::Store(StoreError::Timeout(_) | StoreError::Unavailable(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, tried)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_killed_under_load_loses_nothing_acknowledged() {
    if skipped_without_etcd("etcd_killed_under_load_loses_nothing_acknowledged") {
        return;
    }
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    let mut watch = store.watch("/", store.revision()).unwrap();
    let end = tokio_util::sync::CancellationToken::new();
    let writers = (0..4).map(|writer| tokio::spawn(load(store.clone(), format!("/load/{writer}"), end.clone())));
    let writers: Vec<_> = writers.collect();
    for round in 0..3 {
        let before = store.revision();
        let moved = async {
            while store.revision().0 < before.0 + 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, moved).await.unwrap_or_else(|_| panic!("commits go through in round {round}"));
        etcd.kill(0);
        etcd.launch(0);
    }
    put_until_done(&*store, "/after", "1").await;
    end.cancel();
    for (writer, load) in writers.into_iter().enumerate() {
        let (acknowledged, tried) = load.await.unwrap();
        let found = read_until_answered(&*store, &format!("/load/{writer}")).await.unwrap();
        let found: u64 = found.parse().unwrap();
        assert!((acknowledged..=tried).contains(&found), "{found} of {acknowledged} acknowledged and {tried} tried");
        assert!(acknowledged > 0);
    }
    check_watch(&mut *watch, &store).await;
}

/// A watch that lived through it has seen every revision once, in order, and leads to what is there.
async fn check_watch(watch: &mut dyn kedge_store::Watch, store: &Arc<EtcdStore>) {
    let end = store.refresh().await.unwrap();
    let (mut last, mut state) = (Revision(0), std::collections::BTreeMap::new());
    while watch.progress() < end {
        for change in watch.next(100).await.unwrap() {
            assert!(change.revision > last, "each commit of one key comes once");
            last = change.revision;
            state.insert(change.record.key.clone(), change.record.value.clone());
        }
    }
    let page = store.list(ListRequest { prefix: "/".to_owned(), ..ListRequest::default() }).await.unwrap();
    let listed: std::collections::BTreeMap<_, _> = page.records.into_iter().map(|it| (it.key, it.value)).collect();
    assert_eq!(state, listed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so_and_serves_reads() {
    if skipped_without_etcd("a_full_etcd_says_so_and_serves_reads") {
        return;
    }
    let etcd = Etcd::start_with(1, "http", &["--quota-backend-bytes=262144".to_owned()]);
    let store = etcd.open().await;
    let large = "x".repeat(100 << 10);
    let filling = async {
        loop {
            match store.commit(put("/large", &large)).await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, filling).await.expect("it is full at some time").to_string();
    assert!(error.contains("NOSPACE") && error.contains("disarm"), "{error}");
    assert!(store.get(&Key::new("/large")).await.unwrap().is_some(), "reads go on");
    store.compact(store.revision()).await.unwrap();
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    put_until_done(&*store, "/large", "small").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_by_somebody_else_ends_only_watches_that_miss_something() {
    if skipped_without_etcd("compaction_by_somebody_else_ends_only_watches_that_miss_something") {
        return;
    }
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    for round in 0..10 {
        store.commit(put("/a", &round.to_string())).await.unwrap();
    }
    let mut level = store.watch("/", store.revision()).unwrap();
    etcd.etcdctl(&["compact", &store.revision().to_string()]);
    store.commit(put("/a", "after")).await.unwrap();
    assert_eq!(level.next(9).await.unwrap().len(), 1, "what is followed is not touched");
    assert_eq!(
        store.list(ListRequest { at: Some(Revision(5)), ..ListRequest::default() }).await.unwrap().revision.0,
        5
    );

    // While the store is cut off, others write and compact: what happened is unknown, and watchers are told.
    let mut lagging = store.watch("/", store.revision()).unwrap();
    etcd.kill(0);
    etcd.launch_elsewhere(0);
    etcd.etcdctl(&["put", "/test/a", "elsewhere"]);
    etcd.etcdctl(&["put", "/test/a", "elsewhere"]);
    etcd.etcdctl(&["compact", &(store.revision().0 + 2).to_string()]);
    etcd.kill(0);
    etcd.launch(0);
    let seen = tokio::time::timeout(DEADLINE, lagging.next(100)).await.expect("it is told");
    assert!(matches!(seen, Err(kedge_store::WatchError::Lagged { .. })), "{seen:?}");
    assert_eq!(read_until_answered(&*store, "/a").await.as_deref(), Some("elsewhere"));
    assert_eq!(store.commit(put("/a", "1")).await.unwrap().revision, store.revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_went_back_in_time_is_read_anew() {
    if skipped_without_etcd("an_etcd_that_went_back_in_time_is_read_anew") {
        return;
    }
    let mut etcd = Etcd::start();
    let store = etcd.open().await;
    store.commit(put("/a", "1")).await.unwrap();
    etcd.kill(0);
    etcd.save(0);
    etcd.launch(0);
    put_until_done(&*store, "/a", "2").await;
    put_until_done(&*store, "/b", "1").await;
    let mut watch = store.watch("/", store.revision()).unwrap();
    etcd.kill(0);
    etcd.restore(0);
    etcd.launch(0);
    let seen = tokio::time::timeout(DEADLINE, watch.next(100)).await.expect("it is told");
    assert!(matches!(seen, Err(kedge_store::WatchError::Lagged { .. })), "{seen:?}");
    assert_eq!(read_until_answered(&*store, "/a").await.as_deref(), Some("1"));
    assert_eq!(read_until_answered(&*store, "/b").await, None);
    put_until_done(&*store, "/b", "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_etcd_is_waited_for_and_not_for_ever() {
    if skipped_without_etcd("a_slow_etcd_is_waited_for_and_not_for_ever") {
        return;
    }
    let etcd = Etcd::start();
    let (read_timeout, commit_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let store = EtcdStore::open(Options { read_timeout, commit_timeout, ..etcd.options() }).await.unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    etcd.signal(0, "-STOP");
    let begun = Instant::now();
    let key = Key::new("/a");
    let (read, commit) = tokio::join!(store.get(&key), store.commit(put("/a", "2")));
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(matches!(commit, Err(CommitError::Store(StoreError::Timeout(_)))), "it may have happened: {commit:?}");
    assert!(begun.elapsed() < DEADLINE);
    etcd.signal(0, "-CONT");
    let found = read_until_answered(&store, "/a").await.unwrap();
    assert!(["1", "2"].contains(&found.as_str()), "{found}");
    put_until_done(&store, "/a", "3").await;
    assert_eq!(read_until_answered(&store, "/a").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_who_was_asked() {
    let endpoints = vec!["127.0.0.1:1".to_owned()];
    let timeout = Duration::from_millis(300);
    let options = Options { endpoints, open_timeout: timeout, read_timeout: timeout, ..Options::default() };
    let opened = EtcdStore::open(options).await;
    let Err(error @ EtcdError::NoAnswer { .. }) = opened else { panic!("there is nobody") };
    let text = error.to_string();
    assert!(text.contains("http://127.0.0.1:1") && text.contains("refused"), "{text}");
}
