//! Watches are ordered, unique, reliable, atomic, resumable and bookmarkable.

use super::*;

pub(super) async fn ordered(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut all = watch(&*store, "/r/", store.revision());
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..25 {
                put(&*store, &format!("/r/{writer}"), &round.to_string()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("the writer ends");
    }
    let seen = take(&mut *all, 200).await;
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision), "each commit comes after the one before");
    for writer in 0..8 {
        let key = format!("/r/{writer}");
        let values: Vec<_> = seen.iter().filter(|change| change.record.key.as_str() == key).collect();
        assert!(values.iter().enumerate().all(|(round, change)| text(&change.record) == round.to_string()));
        let chained = values.windows(2).all(|pair| pair[1].previous.as_ref() == Some(&pair[0].record));
        assert!(chained, "the record before is the one delivered before");
    }
}

pub(super) async fn unique(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let start = store.revision();
    for round in 0..20 {
        put(&*store, "/r/a", &round.to_string()).await;
    }
    let mut early = watch(&*store, "/r/", start);
    let mut seen = take(&mut *early, 5).await;
    // Abandoning a wait loses nothing and repeats nothing.
    while !is_idle(&mut *early).await {}
    let mut late = watch(&*store, "/r/", seen.last().expect("some came").revision);
    let rest = take(&mut *late, 20 - seen.len()).await;
    seen.extend(rest);
    put(&*store, "/r/a", "last").await;
    assert_eq!(shown(&take(&mut *early, 1).await), ["~/r/a=last"]);
    assert_eq!(shown(&take(&mut *late, 1).await), ["~/r/a=last"]);
    assert!(is_idle(&mut *early).await && is_idle(&mut *late).await);
    let values: Vec<_> = seen.iter().map(|change| text(&change.record).to_owned()).collect();
    assert_eq!(values, (0..20).map(|round| round.to_string()).collect::<Vec<_>>());
}

pub(super) async fn reliable(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let start = store.revision();
    let prefixes = ["", "/", "/r/", "/r/a/", "/r/a", "/r/a/1", "/r/ab/", "/s/", "/nothing/"];
    let mut watches: Vec<_> = prefixes.iter().map(|prefix| watch(&*store, prefix, start)).collect();
    for key in ["/r/a/1", "/r/a/2", "/r/ab/1", "/r/a/10", "/s/1", "/rs"] {
        put(&*store, key, "x").await;
    }
    delete(&*store, "/r/a/1").await;
    let all = ["+/r/a/1=x", "+/r/a/2=x", "+/r/ab/1=x", "+/r/a/10=x", "+/s/1=x", "+/rs=x", "-/r/a/1=x"];
    for (prefix, watch) in prefixes.iter().zip(&mut watches) {
        let due: Vec<_> = all.iter().filter(|change| change[1..].starts_with(prefix)).copied().collect();
        assert_eq!(shown(&take(&mut **watch, due.len()).await), due, "{prefix:?}, live");
        assert!(is_idle(&mut **watch).await);
        let mut resumed = store.watch(prefix, start).expect("a watch starts");
        assert_eq!(shown(&take(&mut *resumed, due.len()).await), due, "{prefix:?}, from the past");
        assert!(is_idle(&mut *resumed).await);
    }
}

pub(super) async fn atomic(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let mut all = watch(&*store, "/r/", store.revision());
    let reader = tokio::spawn(async move {
        let mut commits = Vec::new();
        while commits.len() < 50 {
            let seen = batch(&mut *all, 1).await.expect("the watch goes on");
            commits.extend(seen.chunk_by(|a, b| a.revision == b.revision).map(shown));
        }
        commits
    });
    for round in 0..50 {
        let value = round.to_string();
        let writes = ["/r/c", "/s/x", "/r/a", "/r/b"].iter().map(|key| write(key, &value)).collect();
        let committed = commit(&*store, writes).await;
        assert!(committed.records.iter().all(|record| record.modified == committed.revision));
    }
    for (round, changes) in reader.await.expect("the reader ends").iter().enumerate() {
        let sign = if round == 0 { '+' } else { '~' };
        let due: Vec<_> = ["/r/a", "/r/b", "/r/c"].iter().map(|key| format!("{sign}{key}={round}")).collect();
        assert_eq!(*changes, due, "a commit comes whole and by key");
    }
}

pub(super) async fn resumable(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let start = store.revision();
    let mut revisions = vec![start];
    for round in 0..10 {
        revisions.push(put(&*store, "/r/a", &round.to_string()).await.modified);
        put(&*store, "/s/a", "noise").await;
    }
    for (done, revision) in revisions.iter().enumerate() {
        let mut resumed = watch(&*store, "/r/", *revision);
        if done < 10 {
            let seen = take(&mut *resumed, 10 - done).await;
            assert_eq!(text(&seen[0].record), done.to_string());
            assert_eq!(text(&seen.last().expect("some came").record), "9");
        }
        assert!(is_idle(&mut *resumed).await);
    }
    let mut from_the_beginning = watch(&*store, "/r/", Revision(0));
    assert_eq!(take(&mut *from_the_beginning, 10).await.len(), 10);
}

pub(super) async fn bookmarkable(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let start = store.revision();
    let mut quiet = watch(&*store, "/r/", start);
    assert_eq!(quiet.progress(), start);
    let elsewhere = put(&*store, "/s/a", "x").await.modified;
    assert_eq!(quiet.progress(), elsewhere, "moves on while only other prefixes change");
    assert!(is_idle(&mut *quiet).await, "and no empty batch comes of it");
    let first = put(&*store, "/r/a", "1").await.modified;
    put(&*store, "/r/a", "2").await;
    assert_eq!(quiet.progress(), elsewhere, "stays while something is undelivered");
    assert_eq!(batch(&mut *quiet, 1).await.expect("the watch goes on").len(), 1);
    assert_eq!(quiet.progress(), first);
    let bookmark = quiet.progress();
    drop(quiet);
    let mut resumed = watch(&*store, "/r/", bookmark);
    assert_eq!(shown(&take(&mut *resumed, 1).await), ["~/r/a=2"]);
    let last = put(&*store, "/s/a", "y").await.modified;
    assert_eq!(resumed.progress(), last);
}
