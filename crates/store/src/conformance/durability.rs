//! Time, and what is there after the store was closed and opened.

use super::*;
use crate::port::StoreError;

fn mortal(key: &str, seconds: u64) -> Write {
    let value = Template { bytes: Bytes::from_static(b"x"), splice_at: None };
    Write::Put { key: Key::new(key), value, ttl: Some(Duration::from_secs(seconds)) }
}

pub(super) async fn time_to_live(backend: &mut dyn Backend) {
    let mut store = open(backend).await;
    let mut all = watch(&*store, "/r/", store.revision());
    commit(&*store, vec![mortal("/r/short", 10), mortal("/r/long", 1000), mortal("/r/renewed", 10)]).await;
    commit(&*store, vec![mortal("/r/renewed", 1000), mortal("/r/immortal", 10)]).await;
    put(&*store, "/r/immortal", "now").await;
    take(&mut *all, 6).await;
    backend.advance(Duration::from_secs(5));
    if backend.durable() {
        store = reopen(backend, store).await;
        all = watch(&*store, "/r/", store.revision());
    }
    let before = store.revision();
    backend.advance(Duration::from_secs(6));
    let expired = take(&mut *all, 1).await;
    assert_eq!(shown(&expired), ["-/r/short=x"]);
    assert_eq!(expired[0].revision, Revision(before.0 + 1), "an expiry is a commit");
    assert_eq!(get(&*store, "/r/short").await, None);
    assert_eq!(listed(&list(&*store, "/r/", None).await), ["/r/immortal=now", "/r/long=x", "/r/renewed=x"]);
    backend.advance(Duration::from_secs(2000));
    assert_eq!(take(&mut *all, 2).await.len(), 2);
    assert_eq!(listed(&list(&*store, "/r/", None).await), ["/r/immortal=now"]);
}

pub(super) async fn relaxed_durability(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut all = watch(&*store, "/r/", store.revision());
    let mut due = Vec::new();
    for round in 0..20 {
        let durability = if round % 3 == 0 { Durability::Durable } else { Durability::Relaxed };
        let writes = vec![write("/r/a", &round.to_string())];
        let committed = store.commit(Transaction { conditions: vec![], writes, durability }).await;
        let record = committed.expect("it goes through").records.remove(0);
        assert_eq!(get(&*store, "/r/a").await, Some(record), "acknowledged is readable");
        due.push(format!("{}/r/a={round}", if round == 0 { '+' } else { '~' }));
    }
    assert_eq!(shown(&take(&mut *all, 20).await), due, "one order for both kinds");
    if backend.durable() {
        let store = reopen(backend, store).await;
        assert_eq!(listed(&list(&*store, "/r/", None).await), ["/r/a=19"], "closing flushes");
    }
}

pub(super) async fn monotonic_revision(backend: &mut dyn Backend) {
    let mut store = open(backend).await;
    let mut last = store.revision();
    for round in 0..5 {
        let record = put(&*store, "/r/a", &round.to_string()).await;
        assert!(record.modified > last, "round {round}");
        assert_eq!(store.revision(), record.modified);
        last = if round == 3 { delete(&*store, "/r/a").await } else { record.modified };
        if backend.durable() {
            store = reopen(backend, store).await;
            assert_eq!(store.revision(), last, "a clean restart moves nothing");
        }
    }
}

pub(super) async fn reopening(backend: &mut dyn Backend) {
    let store = open(backend).await;
    for index in 0..50 {
        put(&*store, &format!("/r/{index}"), "1").await;
    }
    for index in (0..50).step_by(3) {
        put(&*store, &format!("/r/{index}"), "2").await;
    }
    for index in (0..50).step_by(7) {
        delete(&*store, &format!("/r/{index}")).await;
    }
    let (before, stats) = (list(&*store, "", None).await, store.stats());
    if !backend.durable() {
        return;
    }
    let store = reopen(backend, store).await;
    let after = list(&*store, "", None).await;
    assert_eq!((after.records, after.revision), (before.records, before.revision));
    assert_eq!((store.stats().keys, store.stats().value_bytes), (stats.keys, stats.value_bytes));
    let stale = expecting("/r/3", Expect::Modified(Revision(4)));
    assert!(commit_if(&*store, vec![stale], vec![write("/r/3", "3")]).await.is_err(), "conditions see what was there");
}

pub(super) async fn resumable_after_reopening(backend: &mut dyn Backend) {
    let store = open(backend).await;
    put(&*store, "/r/a", "1").await;
    let seen = store.revision();
    commit(&*store, vec![write("/r/a", "2"), write("/r/b", "1")]).await;
    delete(&*store, "/r/a").await;
    let last = store.revision();
    if !backend.durable() {
        return;
    }
    let store = reopen(backend, store).await;
    let (mut older, mut level) = (watch(&*store, "/r/", seen), watch(&*store, "/r/", last));
    let missed = take(&mut *older, 3).await;
    assert_eq!(shown(&missed), ["~/r/a=2", "+/r/b=1", "-/r/a=2"], "what happened before the restart is delivered");
    assert_eq!(missed[0].previous.as_ref().map(text), Some("1"));
    assert_eq!(listed(&list(&*store, "/r/", Some(seen)).await), ["/r/a=1"]);
    put(&*store, "/r/c", "1").await;
    assert_eq!(shown(&take(&mut *older, 1).await), ["+/r/c=1"]);
    assert_eq!(shown(&take(&mut *level, 1).await), ["+/r/c=1"]);

    store.compact(last).await.expect("it compacts");
    put(&*store, "/r/c", "2").await;
    let store = reopen(backend, store).await;
    assert!(matches!(store.watch("/r/", seen), Err(StoreError::Compacted { .. })), "compacted stays compacted");
    assert_eq!(shown(&take(&mut *watch(&*store, "/r/", last), 2).await), ["+/r/c=1", "~/r/c=2"]);
}

pub(super) async fn closing(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut unread = watch(&*store, "/r/", store.revision());
    let mut waiting = watch(&*store, "/s/", store.revision());
    let waiter = tokio::spawn(async move { batch(&mut *waiting, 1).await.map(|changes| changes.len()) });
    put(&*store, "/r/a", "1").await;
    store.close().await.expect("it closes");
    assert!(matches!(waiter.await.expect("the waiter ends"), Err(WatchError::Closed)));
    assert_eq!(shown(&take(&mut *unread, 1).await), ["+/r/a=1"], "what was acknowledged is delivered first");
    assert!(matches!(batch(&mut *unread, 1).await, Err(WatchError::Closed)));
    let refused = commit_if(&*store, vec![], vec![write("/r/b", "1")]).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Closed))));
    assert!(matches!(store.get(&Key::new("/r/a")).await, Err(StoreError::Closed)));
    assert!(matches!(store.list(ListRequest::default()).await, Err(StoreError::Closed)));
    assert!(matches!(store.watch("/r/", store.revision()), Err(StoreError::Closed)));
    store.close().await.expect("closing twice is nothing");
}
