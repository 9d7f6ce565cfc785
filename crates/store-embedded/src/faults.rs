//! The store on a bad disk: power cuts with torn and lost writes, a full disk, a disk that stalls.

mod disk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kedge_store::{
    CommitError, Committed, Condition, Durability, Expect, Key, ListRequest, Revision, Store, StoreError, Template,
    Transaction, Write,
};

use self::disk::Disk;
use crate::engine::Engine;
use crate::store::{EmbeddedStore, Options};

fn start(disk: &Disk) -> EmbeddedStore {
    let again = disk.clone();
    let reopen = Box::new(move || Engine::open_in(again.clone()));
    EmbeddedStore::start(reopen().unwrap(), reopen, None, Path::new("test"), Options::default()).unwrap()
}

fn writing(key: &str, value: &str, durability: Durability) -> Transaction {
    let value = Template { bytes: Bytes::copy_from_slice(value.as_bytes()), splice_at: None };
    let writes = vec![Write::Put { key: Key::new(key), value, ttl: None }];
    Transaction { conditions: vec![], writes, durability }
}

async fn put(store: &EmbeddedStore, key: &str, value: &str) -> Result<Committed, CommitError> {
    store.commit(writing(key, value, Durability::Durable)).await
}

async fn value(store: &EmbeddedStore, key: &str) -> Option<String> {
    let record = store.get(&Key::new(key)).await.unwrap()?;
    Some(String::from_utf8(record.value.to_vec()).unwrap())
}

async fn is_idle(watch: &mut dyn kedge_store::Watch) -> bool {
    tokio::time::timeout(Duration::ZERO, watch.next(1)).await.is_err()
}

/// Lets the spawned commit begin, and waits until the writer's thread has it at the disk.
async fn at_the_disk(disk: &Disk) {
    tokio::task::yield_now().await;
    disk.wait_until_stalled();
}

/// What one client was told: the last value acknowledged for its key, and the one it was writing.
struct Told {
    key: String,
    acknowledged: u64,
    attempted: u64,
    highest: Revision,
}

/// Writes counting values to one key until the disk fails, on from what it was told in an earlier life. Every third commit
/// is relaxed and goes to a lease.
async fn write_until_failure(store: Arc<EmbeddedStore>, client: usize, mut told: Told) -> Told {
    loop {
        let lease = writing(&format!("/registry/leases/{client}"), "x", Durability::Relaxed);
        if told.attempted.is_multiple_of(3)
            && let Ok(committed) = store.commit(lease).await
        {
            told.highest = told.highest.max(committed.revision);
        }
        told.attempted += 1;
        match put(&store, &told.key, &told.attempted.to_string()).await {
            Ok(committed) => {
                told.acknowledged = told.attempted;
                told.highest = told.highest.max(committed.revision);
            }
            Err(CommitError::Store(StoreError::Storage(_))) => return told,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn check_power_cut(seed: u64) {
    let disk = Disk::new(seed);
    let client =
        |client| Told { key: format!("/registry/pods/{client}"), acknowledged: 0, attempted: 0, highest: Revision(0) };
    let mut expected: Vec<Told> = (0..4).map(client).collect();
    let mut highest = Revision(0);
    // Three lives of the same data, each ended by a cut.
    for life in 0..3 {
        let store = Arc::new(start(&disk));
        assert!(store.revision() >= highest, "seed {seed}: the revision went back in life {life}");
        for told in &expected {
            let found = value(&store, &told.key).await.map_or(0, |value| value.parse::<u64>().unwrap());
            let fine = (told.acknowledged..=told.attempted).contains(&found);
            assert!(fine, "seed {seed}: {} is {found}, {} was acknowledged", told.key, told.acknowledged);
        }
        disk.fail_after(40 + (seed % 97) as usize);
        let told = std::mem::take(&mut expected).into_iter().enumerate();
        let clients: Vec<_> =
            told.map(|(client, told)| tokio::spawn(write_until_failure(Arc::clone(&store), client, told))).collect();
        for client in clients {
            let told = client.await.unwrap();
            highest = highest.max(told.highest);
            expected.push(told);
        }
        highest = highest.max(store.revision());
        drop(store);
        disk.cut_power();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_acknowledged() {
    for seed in 0..40 {
        check_power_cut(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_only_those_list_again_who_may_have_seen_what_is_lost() {
    let disk = Disk::new(1);
    let store = start(&disk);
    let relaxed = |value| store.commit(writing("/registry/leases/a", value, Durability::Relaxed));
    relaxed("on disk, as the first of its part").await.unwrap();
    let safe = put(&store, "/registry/pods/a", "1").await.unwrap().revision;
    let lost = relaxed("lost").await.unwrap().revision;
    assert_eq!(store.revision(), lost, "a relaxed commit is seen at once");
    disk.fail_after(0);
    drop(relaxed("lost too").await);
    drop(store);
    disk.cut_power();

    let store = start(&disk);
    assert_eq!(value(&store, "/registry/leases/a").await.unwrap(), "on disk, as the first of its part");
    assert!(store.revision() > lost);
    for prefix in ["/registry/leases/", "/registry/", "/registry/leases/a"] {
        assert!(matches!(store.watch(prefix, lost), Err(StoreError::Compacted { .. })), "{prefix}");
        assert!(store.watch(prefix, safe).is_ok(), "{prefix}");
        assert!(store.watch(prefix, store.revision()).is_ok(), "{prefix}");
    }
    let mut pods = store.watch("/registry/pods/", lost).unwrap();
    put(&store, "/registry/pods/a", "2").await.unwrap();
    let seen = pods.next(9).await.unwrap();
    assert_eq!((seen.len(), &seen[0].record.value[..]), (1, &b"2"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_and_not_reads() {
    let disk = Disk::new(2);
    let store = start(&disk);
    let first = put(&store, "/r/a", "1").await.unwrap().revision;
    let mut watch = store.watch("/r/", first).unwrap();
    assert_eq!(store.failure(), None);
    disk.fail_after(0);
    for key in ["/r/b", "/r/c"] {
        let refused = put(&store, key, "1").await.unwrap_err();
        assert!(matches!(refused, CommitError::Store(StoreError::Storage(_))), "{refused}");
        assert_eq!(value(&store, key).await, None, "what failed is not seen");
    }
    assert!(store.failure().is_some());
    let relaxed = store.commit(writing("/r/d", "1", Durability::Relaxed)).await;
    assert!(matches!(relaxed, Err(CommitError::Store(StoreError::Storage(_)))));
    assert_eq!(value(&store, "/r/a").await.unwrap(), "1");
    assert_eq!(store.list(ListRequest::default()).await.unwrap().records.len(), 1);
    assert!(is_idle(&mut *watch).await);
    assert!(matches!(store.close().await, Err(StoreError::Storage(_))), "closing says that it could not flush");
    drop(store);

    disk.repair();
    let store = start(&disk);
    assert_eq!(value(&store, "/r/a").await.unwrap(), "1");
    assert!(put(&store, "/r/e", "1").await.unwrap().revision > first);
}

/// Waits until the store takes a write again.
async fn put_when_it_works(store: &EmbeddedStore, key: &str, value: &str) -> Committed {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match put(store, key, value).await {
            Ok(committed) => return committed,
            Err(error) => assert!(std::time::Instant::now() < deadline, "it still fails: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_has_room_again_takes_writes_without_a_restart() {
    for seed in 0..7 {
        let disk = Disk::new(seed);
        let store = start(&disk);
        let lease = |value: &str| writing("/registry/leases/a", value, Durability::Relaxed);
        store.commit(lease("known")).await.unwrap();
        let before = put(&store, "/r/a", "1").await.unwrap().revision;
        let mut watch = store.watch("/r/", before).unwrap();
        // Seen by everybody, and not on disk when it fails.
        let seen = store.commit(lease("seen")).await.unwrap().revision;
        disk.fail_after((seed % 7) as usize);
        let mut refused = 0;
        while refused < 3 {
            match put(&store, "/r/b", "refused").await {
                Ok(_) => disk.fail_after(0),
                Err(_) => refused += 1,
            }
        }
        let shown = value(&store, "/r/b").await;
        disk.repair();
        let after = put_when_it_works(&store, "/r/c", "3").await.revision;
        assert_eq!(store.failure(), None, "seed {seed}");
        assert!(after > seen, "seed {seed}: the revision goes on");
        assert_eq!(value(&store, "/r/b").await, shown, "seed {seed}: what was refused is not seen later");
        let told = watch.next(9).await.unwrap();
        assert_eq!(told.last().unwrap().revision, after, "seed {seed}: watches go on");
        assert_eq!(value(&store, "/registry/leases/a").await.unwrap(), "seen");
        store.close().await.unwrap();
        drop(store);

        let store = start(&disk);
        assert_eq!(value(&store, "/registry/leases/a").await.unwrap(), "seen", "seed {seed}");
        assert_eq!(value(&store, "/r/b").await, shown, "seed {seed}: nor after a restart");
        assert_eq!(value(&store, "/r/c").await.unwrap(), "3");
        assert!(store.revision() >= after);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_on_disk_is_not_seen() {
    let disk = Disk::new(3);
    let store = Arc::new(start(&disk));
    let before = put(&store, "/r/a", "old").await.unwrap().revision;
    let mut watch = store.watch("/r/", before).unwrap();
    disk.stall();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { put(&store, "/r/a", "new").await }
    });
    at_the_disk(&disk).await;
    assert_eq!(value(&store, "/r/a").await.unwrap(), "old");
    assert_eq!(store.revision(), before);
    assert!(is_idle(&mut *watch).await && !writer.is_finished());
    // What rests on it is not told either: neither a conflict with it, nor a commit that finds it.
    let mut condition = writing("/r/b", "x", Durability::Durable);
    condition.conditions = vec![Condition { key: Key::new("/r/a"), expect: Expect::Modified(before) }];
    let conflict = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(condition).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!conflict.is_finished() && !writer.is_finished());
    disk.resume();
    let committed = writer.await.unwrap().unwrap();
    assert!(
        matches!(conflict.await.unwrap(), Err(CommitError::Conflict { current: Some(current), .. }) if current.value == "new")
    );
    assert_eq!(watch.next(9).await.unwrap()[0].revision, committed.revision);
    assert_eq!(value(&store, "/r/a").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_disk_does_not_hold_up_a_lease() {
    let disk = Disk::new(4);
    let store = Arc::new(start(&disk));
    let lease = |value: &str| writing("/registry/leases/a", value, Durability::Relaxed);
    store.commit(lease("1")).await.unwrap();
    disk.stall();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { put(&store, "/registry/pods/a", "x").await }
    });
    at_the_disk(&disk).await;
    let before = store.revision();
    for round in 2..5 {
        let renewed = store.commit(lease(&round.to_string())).await.unwrap();
        let read = store.get(&Key::new("/registry/leases/a")).await.unwrap().unwrap();
        assert_eq!(Some(&read), renewed.records.first(), "what is acknowledged is readable");
        assert_eq!(store.revision(), before, "and becomes visible in its order");
    }
    assert!(!writer.is_finished());
    let mut leases = store.watch("/registry/leases/", before).unwrap();
    let listed = tokio::spawn({
        let (store, at) = (Arc::clone(&store), Revision(before.0 + 4));
        async move { store.list(ListRequest { at: Some(at), ..ListRequest::default() }).await.unwrap() }
    });
    disk.resume();
    assert_eq!(listed.await.unwrap().records.len(), 2, "a list at what was acknowledged waits for it");
    assert_eq!(leases.next(9).await.unwrap().len(), 3);
    writer.await.unwrap().unwrap();
}
