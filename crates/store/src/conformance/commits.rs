//! Commits are conditional, whole, and the only thing that moves the revision.

use super::*;

async fn check_condition(store: &dyn Store, condition: Condition, holds: bool) {
    let before = (store.revision(), get(store, "/r/target").await, get(store, condition.key.as_str()).await);
    let outcome = commit_if(store, vec![condition.clone()], vec![write("/r/target", "x")]).await;
    match outcome {
        Ok(committed) => {
            assert!(holds, "{condition:?}");
            assert_eq!(committed.revision.0, before.0.0 + 1);
        }
        Err(CommitError::Conflict { key, current }) => {
            assert!(!holds, "{condition:?}");
            assert_eq!((&key, current.map(|record| *record)), (&condition.key, before.2), "says what the key is now");
            assert_eq!((store.revision(), get(store, "/r/target").await), (before.0, before.1), "nothing happened");
        }
        Err(error) => panic!("{condition:?}: {error}"),
    }
}

pub(super) async fn conditional_commits(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let old = put(&*store, "/r/there", "1").await.modified;
    let new = put(&*store, "/r/there", "2").await.modified;
    put(&*store, "/r/gone", "1").await;
    delete(&*store, "/r/gone").await;
    check_condition(&*store, expecting("/r/there", Expect::Absent), false).await;
    check_condition(&*store, expecting("/r/there", Expect::Present), true).await;
    check_condition(&*store, expecting("/r/there", Expect::Modified(new)), true).await;
    check_condition(&*store, expecting("/r/there", Expect::Modified(old)), false).await;
    for key in ["/r/gone", "/r/never"] {
        check_condition(&*store, expecting(key, Expect::Absent), true).await;
        check_condition(&*store, expecting(key, Expect::Present), false).await;
        check_condition(&*store, expecting(key, Expect::Modified(old)), false).await;
    }
    let both = vec![expecting("/r/there", Expect::Present), expecting("/r/gone", Expect::Present)];
    let refused = commit_if(&*store, both, vec![removal("/r/there")]).await;
    assert!(matches!(refused, Err(CommitError::Conflict { key, .. }) if key.as_str() == "/r/gone"), "all must hold");
    assert!(get(&*store, "/r/there").await.is_some());
}

pub(super) async fn commits_of_several_keys(backend: &mut dyn Backend) {
    let store = open(backend).await;
    let created = put(&*store, "/r/a", "1").await.modified;
    put(&*store, "/r/b", "1").await;
    let committed = commit(&*store, vec![write("/r/a", "2"), removal("/r/b"), write("/r/c", "2")]).await;
    let shown: Vec<_> = committed.records.iter().map(|record| (record.key.as_str(), record.created)).collect();
    assert_eq!(shown, [("/r/a", created), ("/r/c", committed.revision)], "a record for each put, in their order");
    assert_eq!(get(&*store, "/r/a").await.as_ref(), committed.records.first());
    assert_eq!(get(&*store, "/r/b").await, None);
    assert_eq!(listed(&list(&*store, "/r/", None).await), ["/r/a=2", "/r/c=2"]);
    let again = put(&*store, "/r/b", "3").await;
    assert_eq!((again.created, again.modified), (again.modified, Revision(committed.revision.0 + 1)));
}

pub(super) async fn no_change_no_revision(backend: &mut dyn Backend) {
    let store = open(backend).await;
    assert!(store.revision() > Revision(0), "zero means something else to clients");
    let before = put(&*store, "/r/a", "1").await.modified;
    let nothing = commit(&*store, vec![removal("/r/absent")]).await;
    assert_eq!((nothing.revision, nothing.records.len()), (before, 0));
    let only_conditions = commit_if(&*store, vec![expecting("/r/a", Expect::Present)], vec![]).await;
    assert_eq!(only_conditions.expect("the condition holds").revision, before);
    let same_again = put(&*store, "/r/a", "1").await.modified;
    assert_eq!((same_again, store.revision()), (Revision(before.0 + 1), same_again), "a rewrite is a change");
}

pub(super) async fn spliced_revision(backend: &mut dyn Backend) {
    let store = open(backend).await;
    for round in 0..12 {
        let bytes = Bytes::from_static(br#"{"rv":""}"#);
        let value = Template { bytes, splice_at: Some(7) };
        let put = Write::Put { key: Key::new("/r/a"), value, ttl: None };
        let record = commit(&*store, vec![put, write("/r/b", "")]).await.records.remove(0);
        assert_eq!(text(&record), format!(r#"{{"rv":"{}"}}"#, record.modified), "round {round}");
        assert_eq!(record.value_at(Revision(123_456)), r#"{"rv":"123456"}"#);
        assert_eq!(get(&*store, "/r/a").await, Some(record));
    }
    let store = reopen_if_durable(backend, store).await;
    let record = get(&*store, "/r/a").await.expect("it is there");
    assert_eq!(record.value_at(Revision(1)), r#"{"rv":"1"}"#);
}

async fn reopen_if_durable(backend: &mut dyn Backend, store: Arc<dyn Store>) -> Arc<dyn Store> {
    if backend.durable() { reopen(backend, store).await } else { store }
}

pub(super) async fn racing_commits(backend: &mut dyn Backend) {
    let store = open(backend).await;
    put(&*store, "/r/counter", "0").await;
    let clients = (0..8).map(|client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { race(&*store, client).await })
    });
    let mut created = 0;
    for client in clients.collect::<Vec<_>>() {
        created += client.await.expect("the client ends");
    }
    assert_eq!(created, 1, "one of those who create a key wins");
    assert_eq!(text(&get(&*store, "/r/counter").await.expect("it is there")), "160", "no increment is lost");
}

/// Tries to create a key and increments a counter 20 times. Says how many keys it created.
async fn race(store: &dyn Store, client: usize) -> usize {
    let condition = vec![expecting("/r/once", Expect::Absent)];
    let created = commit_if(store, condition, vec![write("/r/once", &client.to_string())]).await;
    if let Err(CommitError::Conflict { current, .. }) = &created {
        let winner = current.as_ref().expect("the winner's record is there");
        assert_eq!(get(store, "/r/once").await.as_ref(), Some(&**winner), "a conflict shows what reads show");
    }
    let mut done = 0;
    while done < 20 {
        let record = get(store, "/r/counter").await.expect("it is there");
        let next = text(&record).parse::<u64>().expect("a number") + 1;
        let condition = vec![expecting("/r/counter", Expect::Modified(record.modified))];
        match commit_if(store, condition, vec![write("/r/counter", &next.to_string())]).await {
            Ok(_) => done += 1,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    usize::from(created.is_ok())
}
