//! Random operations against a model so simple that it is plainly right: a snapshot of all keys for each revision.
//!
//! The seed is printed where a run fails; `KEDGE_TEST_SEED` repeats it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::*;
use crate::port::StoreError;

const STEPS: usize = 600;
const PREFIXES: [&str; 7] = ["", "/r/", "/r/a", "/r/a/", "/r/b/", "/s/", "/r/a/1"];

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn key(&mut self) -> String {
        format!("/{}/{}", self.pick(&["r/a", "r/b", "r/ab", "s"]), self.below(12))
    }
}

/// Prints the seed where the test panics.
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "part of a test's failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with KEDGE_TEST_SEED={}", self.0);
        }
    }
}

type Snapshot = BTreeMap<String, Record>;

/// What the store should be.
struct Model {
    snapshots: BTreeMap<Revision, Snapshot>,
    changes: Vec<(ChangeKind, Revision, Record)>,
    floor: Revision,
}

impl Model {
    fn now(&self) -> Revision {
        *self.snapshots.keys().next_back().expect("there is always one")
    }

    fn live(&self) -> &Snapshot {
        &self.snapshots[&self.now()]
    }

    fn apply(&mut self, committed: &Committed, writes: &[Write]) {
        if committed.revision == self.now() {
            assert!(writes.iter().all(|write| !matches!(write, Write::Put { .. })), "a put is a change");
            return;
        }
        let mut next = self.live().clone();
        let mut records = committed.records.iter();
        for write in writes {
            match write {
                Write::Put { key, value, .. } => {
                    let record = records.next().expect("a record for each put");
                    assert_eq!((&record.key, &record.value), (key, &value.bytes));
                    let before = next.insert(key.as_str().to_owned(), record.clone());
                    let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Created };
                    assert_eq!(record.created, before.map_or(committed.revision, |before| before.created));
                    self.changes.push((kind, committed.revision, record.clone()));
                }
                Write::Delete { key } => {
                    let before = next.remove(key.as_str());
                    self.changes.extend(before.map(|last| (ChangeKind::Deleted, committed.revision, last)));
                }
            }
        }
        let commit = self.changes.partition_point(|change| change.1 < committed.revision);
        self.changes[commit..].sort_by(|a, b| a.2.key.cmp(&b.2.key));
        assert_eq!(committed.revision.0, self.now().0 + 1, "revisions have no gap");
        self.snapshots.insert(committed.revision, next);
    }

    fn holds(&self, condition: &Condition) -> bool {
        let current = self.live().get(condition.key.as_str());
        match condition.expect {
            Expect::Absent => current.is_none(),
            Expect::Present => current.is_some(),
            Expect::Modified(revision) => current.is_some_and(|record| record.modified == revision),
        }
    }

    fn due(&self, prefix: &str, after: Revision) -> Vec<(ChangeKind, Revision, Record)> {
        let due =
            |change: &&(ChangeKind, Revision, Record)| change.1 > after && change.2.key.as_str().starts_with(prefix);
        self.changes.iter().filter(due).cloned().collect()
    }
}

/// A watch of the store, and up to where it has delivered.
struct Watching {
    prefix: &'static str,
    seen: Revision,
    watch: Box<dyn Watch>,
}

pub(super) async fn model(backend: &mut dyn Backend) {
    let given = std::env::var("KEDGE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seed = Seed(given.unwrap_or(clock));
    let mut random = Random(seed.0);
    let mut store = open(backend).await;
    let mut model = Model {
        snapshots: BTreeMap::from([(store.revision(), Snapshot::new())]),
        changes: Vec::new(),
        floor: store.oldest(),
    };
    let mut watches: Vec<Watching> = Vec::new();
    for _ in 0..STEPS {
        match random.below(100) {
            0..45 => step_commit(&*store, &mut model, &mut random).await,
            45..65 => step_list(&*store, &model, &mut random).await,
            65..75 => step_watch(&*store, &model, &mut random, &mut watches),
            75..95 => step_next(&model, &mut random, &mut watches).await,
            95..97 => step_compact(&*store, &mut model, &mut random).await,
            97..99 if backend.durable() => {
                watches.clear();
                store = reopen(backend, store).await;
                assert_eq!(store.oldest(), model.floor);
            }
            _ => watches.clear(),
        }
        assert_eq!(store.revision(), model.now());
    }
    for prefix in PREFIXES {
        let page = list(&*store, prefix, None).await;
        let live = model.live().values().filter(|record| record.key.as_str().starts_with(prefix));
        assert_eq!(page.records, live.cloned().collect::<Vec<_>>());
    }
}

async fn step_commit(store: &dyn Store, model: &mut Model, random: &mut Random) {
    let mut writes: Vec<Write> = Vec::new();
    for _ in 0..=random.below(3) {
        let key = random.key();
        let fresh = |write: &Write| match write {
            Write::Put { key: other, .. } | Write::Delete { key: other } => other.as_str() != key,
        };
        if writes.iter().all(fresh) {
            let value = random.below(1000).to_string();
            writes.push(if random.below(3) == 0 { removal(&key) } else { write(&key, &value) });
        }
    }
    let mut conditions = Vec::new();
    if random.below(2) == 0 {
        let key = random.key();
        let modified = model.live().get(&key).map_or(Revision(1), |record| record.modified);
        let stale = Revision(modified.0.saturating_sub(random.below(2) as u64));
        let expect = [Expect::Absent, Expect::Present, Expect::Modified(stale)][random.below(3)];
        conditions.push(expecting(&key, expect));
    }
    let durability = if random.below(3) == 0 { Durability::Relaxed } else { Durability::Durable };
    let holds = conditions.iter().all(|condition| model.holds(condition));
    let transaction = Transaction { conditions, writes: writes.clone(), durability };
    match store.commit(transaction).await {
        Ok(committed) => {
            assert!(holds, "the condition does not hold");
            model.apply(&committed, &writes);
        }
        Err(CommitError::Conflict { key, current }) => {
            assert!(!holds, "the condition holds");
            assert_eq!(current.as_deref(), model.live().get(key.as_str()));
        }
        Err(error) => panic!("{error}"),
    }
}

async fn step_list(store: &dyn Store, model: &Model, random: &mut Random) {
    let prefix = random.pick(&PREFIXES);
    let revisions: Vec<_> = model.snapshots.keys().copied().collect();
    let at = revisions[random.below(revisions.len())];
    let start_after = (random.below(2) == 0).then(|| Key::new(random.key()));
    let limit = (random.below(2) == 0).then(|| random.below(6));
    let request = ListRequest { prefix: prefix.to_owned(), start_after: start_after.clone(), limit, at: Some(at) };
    let page = match store.list(request).await {
        Err(StoreError::Compacted { .. }) => return assert!(at < model.floor),
        other => other.expect("a list is answered"),
    };
    assert!(at >= model.floor, "compacted");
    let matches = |record: &&Record| {
        record.key.as_str().starts_with(prefix) && start_after.as_ref().is_none_or(|key| record.key > *key)
    };
    let all: Vec<_> = model.snapshots[&at].values().filter(matches).cloned().collect();
    let count = limit.map_or(all.len(), |limit| limit.min(all.len()));
    assert_eq!((page.records, page.remaining, page.revision), (all[..count].to_vec(), all.len() - count, at));
    let live = model.live().keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(store.count(prefix).await.expect("a count is answered"), live);
}

fn step_watch(store: &dyn Store, model: &Model, random: &mut Random, watches: &mut Vec<Watching>) {
    let prefix = random.pick(&PREFIXES);
    let revisions: Vec<_> = model.snapshots.keys().copied().collect();
    let seen = revisions[random.below(revisions.len())];
    match store.watch(prefix, seen) {
        Ok(watch) => {
            assert!(seen >= model.floor, "compacted");
            watches.push(Watching { prefix, seen, watch });
        }
        Err(error) => assert!(matches!(error, StoreError::Compacted { .. }) && seen < model.floor, "{error}"),
    }
}

async fn step_next(model: &Model, random: &mut Random, watches: &mut Vec<Watching>) {
    if watches.is_empty() {
        return;
    }
    let at = random.below(watches.len());
    let watching = &mut watches[at];
    let due = model.due(watching.prefix, watching.seen);
    if due.is_empty() {
        assert!(is_idle(&mut *watching.watch).await);
        assert_eq!(watching.watch.progress(), model.now());
        return;
    }
    let limit = random.below(5);
    match batch(&mut *watching.watch, limit).await {
        Ok(changes) => {
            let seen: Vec<_> =
                changes.iter().map(|change| (change.kind, change.revision, change.record.clone())).collect();
            assert_eq!(seen, due[..seen.len()]);
            let whole = due.get(seen.len()).is_none_or(|next| next.1 > seen[seen.len() - 1].1);
            assert!(whole && seen.len() >= limit.min(due.len()));
            watching.seen = seen[seen.len() - 1].1;
        }
        Err(error) => {
            assert!(matches!(error, WatchError::Lagged { .. }) && due[0].1 <= model.floor, "{error}");
            watches.remove(at);
        }
    }
}

async fn step_compact(store: &dyn Store, model: &mut Model, random: &mut Random) {
    // Compacting to the first revision forgets nothing, and a backend need not remember it.
    let least = model.floor.max(Revision(2));
    let revisions: Vec<_> = model.snapshots.range(least..).map(|(revision, _)| *revision).collect();
    if revisions.is_empty() {
        return;
    }
    let floor = revisions[random.below(revisions.len())];
    store.compact(floor).await.expect("it compacts");
    model.floor = floor;
    assert_eq!(store.oldest(), floor);
}
