//! Lists, now and in the past, and the end of the past.

use super::*;
use crate::port::StoreError;

pub(super) async fn lists_by_prefix(backend: &mut dyn Backend) {
    let store = open(backend).await;
    assert!(list(&*store, "/r/", None).await.records.is_empty());
    for key in ["/r/b/1", "/r/a/2", "/r/a/1", "/r/ab/1", "/r", "/s/1"] {
        put(&*store, key, "x").await;
    }
    for (prefix, keys) in [
        ("/r/a/", vec!["/r/a/1", "/r/a/2"]),
        ("/r/a", vec!["/r/a/1", "/r/a/2", "/r/ab/1"]),
        ("/r/", vec!["/r/a/1", "/r/a/2", "/r/ab/1", "/r/b/1"]),
        ("/t/", vec![]),
        ("", vec!["/r", "/r/a/1", "/r/a/2", "/r/ab/1", "/r/b/1", "/s/1"]),
    ] {
        let page = list(&*store, prefix, None).await;
        let found: Vec<_> = page.records.iter().map(|record| record.key.as_str()).collect();
        assert_eq!((found, page.remaining, page.revision), (keys.clone(), 0, store.revision()), "{prefix:?}");
        assert_eq!(store.count(prefix).await.expect("a count is answered"), keys.len());
    }
}

pub(super) async fn limit_and_continue(backend: &mut dyn Backend) {
    let store = open(backend).await;
    for index in 0..10 {
        put(&*store, &format!("/r/{index}"), "old").await;
    }
    let mut request = ListRequest { prefix: "/r/".into(), limit: Some(3), ..ListRequest::default() };
    let first = store.list(request.clone()).await.expect("a list is answered");
    assert_eq!((listed(&first), first.remaining), (vec!["/r/0=old".into(), "/r/1=old".into(), "/r/2=old".into()], 7));
    // What happens between the pages does not show.
    commit(&*store, vec![removal("/r/3"), write("/r/4", "new"), write("/r/35", "new"), write("/r/0", "new")]).await;
    request.at = Some(first.revision);
    let mut all = listed(&first);
    let mut last = first;
    while last.remaining > 0 {
        request.start_after = last.records.last().map(|record| record.key.clone());
        let next = store.list(request.clone()).await.expect("a list is answered");
        assert_eq!(next.revision, last.revision);
        assert_eq!(next.remaining + next.records.len(), last.remaining);
        all.extend(listed(&next));
        last = next;
    }
    assert_eq!(all, (0..10).map(|index| format!("/r/{index}=old")).collect::<Vec<_>>());
    request.start_after = Some(Key::new("/r/9"));
    assert!(store.list(request.clone()).await.expect("a list is answered").records.is_empty());
    request.start_after = Some(Key::new("/z"));
    assert!(store.list(request).await.expect("a list is answered").records.is_empty());
}

pub(super) async fn lists_in_the_past(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut moments = vec![(store.revision(), list(&*store, "/r/", None).await)];
    for round in 0..30 {
        let (key, other) = (format!("/r/{}", round % 7), format!("/s/{round}"));
        let change = if round % 5 == 4 { removal(&key) } else { write(&key, &round.to_string()) };
        commit(&*store, vec![change, write(&other, "noise")]).await;
        moments.push((store.revision(), list(&*store, "/r/", None).await));
    }
    for (revision, then) in moments {
        let page = list(&*store, "/r/", Some(revision)).await;
        assert_eq!((page.records, page.revision), (then.records, revision));
    }
}

pub(super) async fn future_revision(backend: &mut dyn Backend) {
    let store = open(backend).await;
    put(&*store, "/r/a", "1").await;
    let future = Revision(store.revision().0 + 1);
    let request = ListRequest { at: Some(future), ..ListRequest::default() };
    let check = |error: StoreError| match error {
        StoreError::Future { requested, current } => assert_eq!((requested, current), (future, store.revision())),
        other => panic!("{other}"),
    };
    check(store.list(request).await.expect_err("there is no list of the future"));
    check(store.watch("/r/", future).err().expect("there is no watch from the future"));
    check(store.compact(future).await.expect_err("there is nothing to compact"));
}

pub(super) async fn compaction(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut revisions = Vec::new();
    for round in 0..6 {
        revisions.push(put(&*store, "/r/a", &round.to_string()).await.modified);
    }
    let mut behind = watch(&*store, "/r/", revisions[1]);
    let mut level = watch(&*store, "/r/", revisions[3]);
    store.compact(revisions[3]).await.expect("it compacts");
    assert_eq!(store.oldest(), revisions[3]);
    for revision in &revisions[..3] {
        let request = ListRequest { at: Some(*revision), ..ListRequest::default() };
        let list = store.list(request).await.expect_err("it is compacted");
        let watch = store.watch("/r/", *revision).err().expect("it is compacted");
        for error in [list, watch] {
            let said = matches!(error, StoreError::Compacted { requested, oldest } if (requested, oldest) == (*revision, revisions[3]));
            assert!(said, "{error}");
        }
    }
    for (round, revision) in revisions.iter().enumerate().skip(3) {
        assert_eq!(listed(&list(&*store, "/r/", Some(*revision)).await), [format!("/r/a={round}")]);
        assert!(store.watch("/r/", *revision).is_ok());
    }
    assert!(matches!(batch(&mut *behind, 9).await, Err(WatchError::Lagged { oldest }) if oldest == revisions[3]));
    assert_eq!(shown(&take(&mut *level, 2).await), ["~/r/a=4", "~/r/a=5"]);
    store.compact(revisions[0]).await.expect("compacting what is compacted does nothing");
    assert_eq!(store.oldest(), revisions[3]);
    store.compact(store.revision()).await.expect("it compacts");
    assert_eq!(listed(&list(&*store, "/r/", None).await), ["/r/a=5"], "the present is always there");
    assert_eq!(store.stats().history, 0);
}

pub(super) async fn bounded_history(backend: &mut dyn Backend) {
    let limits = HistoryLimits { changes: 32, ..HistoryLimits::default() };
    let store = backend.open(limits).await;
    let start = store.revision();
    for round in 0..200 {
        put(&*store, &format!("/r/{}", round % 10), &round.to_string()).await;
        let history = store.stats().history;
        assert!(history <= 34, "{history} changes are kept after {round}");
    }
    assert!(store.watch("/r/", start).is_err());
    let oldest = store.oldest();
    let mut kept = watch(&*store, "/r/", oldest);
    assert_eq!(take(&mut *kept, 30).await[0].revision, Revision(oldest.0 + 1));
    let page = list(&*store, "/r/", Some(oldest)).await;
    assert_eq!((page.records.len(), page.revision), (10, oldest));
    let (keys, bytes) = (store.stats().keys, store.stats().value_bytes);
    assert_eq!((keys, bytes), (10, 30), "live values are 190 to 199");

    backend.advance(limits.age * 2);
    let last = put(&*store, "/r/0", "now").await.modified;
    assert!(store.stats().history <= 1, "age bounds it too");
    assert!(store.oldest() >= Revision(last.0 - 1));
}

pub(super) async fn lagging_watch(backend: &mut dyn Backend) {
    let limits = HistoryLimits { changes: 16, ..HistoryLimits::default() };
    let store = backend.open(limits).await;
    let mut slow = watch(&*store, "/r/", store.revision());
    let mut elsewhere = watch(&*store, "/quiet/", store.revision());
    for round in 0..64 {
        put(&*store, "/r/a", &round.to_string()).await;
    }
    match batch(&mut *slow, 100).await {
        Err(WatchError::Lagged { oldest }) => assert_eq!(oldest, store.oldest()),
        other => panic!("a watch behind the history says so: {other:?}"),
    }
    put(&*store, "/quiet/a", "x").await;
    let seen = shown(&take(&mut *elsewhere, 1).await);
    assert_eq!(seen, ["+/quiet/a=x"], "a watch that missed nothing goes on");
}
