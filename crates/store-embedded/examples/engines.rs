//! Compares storage engines on the embedded store's workload: rows that are appended by revision, one group commit with
//! one fsync for what 32 clients write at once, old rows deleted as history ends, everything read once at the start.
//!
//! `engines [DIR]` runs every engine in processes of its own and prints a table; it is how
//! `docs/decisions/0002-storage-engine.md` came about. Not part of the product.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CLIENTS: usize = 32;
const WRITES: usize = 40_000;
const OBJECTS: usize = 100_000;
const SIZE: usize = 1024;

/// What the store needs of an engine.
trait Engine: Send {
    /// Writes and deletes rows atomically; on disk when it returns.
    fn write(&mut self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]);
    /// Hands every row to `row`, in order.
    fn scan(&self, row: &mut dyn FnMut(&[u8], &[u8]));
}

struct Redb(redb::Database);

const ROWS: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("rows");

impl Redb {
    fn open(dir: &Path) -> Self {
        let db = redb::Builder::new().set_cache_size(8 << 20).create(dir.join("store.redb")).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(ROWS).unwrap();
        transaction.commit().unwrap();
        Self(db)
    }
}

impl Engine for Redb {
    fn write(&mut self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(ROWS).unwrap();
            for key in deletes {
                table.remove(key.as_slice()).unwrap();
            }
            for (key, value) in puts {
                table.insert(key.as_slice(), value.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn scan(&self, row: &mut dyn FnMut(&[u8], &[u8])) {
        use redb::{ReadableDatabase, ReadableTable};
        let table = self.0.begin_read().unwrap().open_table(ROWS).unwrap();
        for entry in table.iter().unwrap() {
            let (key, value) = entry.unwrap();
            row(key.value(), value.value());
        }
    }
}

struct Fjall {
    db: fjall::Database,
    rows: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Self {
        let builder = fjall::Database::builder(dir.join("store.fjall"));
        let builder = builder.worker_threads(1).cache_size(1 << 20).manual_journal_persist(true);
        let db = builder.max_journaling_size(64 << 20).open().unwrap();
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(4 << 20);
        let rows = db.keyspace("rows", options).unwrap();
        Self { db, rows }
    }
}

impl Engine for Fjall {
    fn write(&mut self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for key in deletes {
            batch.remove(&self.rows, key.as_slice());
        }
        for (key, value) in puts {
            batch.insert(&self.rows, key.as_slice(), value.as_slice());
        }
        batch.commit().unwrap();
    }

    fn scan(&self, row: &mut dyn FnMut(&[u8], &[u8])) {
        for guard in self.rows.iter() {
            let (key, value) = guard.into_inner().unwrap();
            row(&key, &value);
        }
    }
}

/// What the measuring itself costs.
struct Nothing;

impl Engine for Nothing {
    fn write(&mut self, _: &[(Vec<u8>, Vec<u8>)], _: &[Vec<u8>]) {}
    fn scan(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

fn open(engine: &str, dir: &Path) -> Box<dyn Engine> {
    match engine {
        "redb" => Box::new(Redb::open(dir)),
        "fjall" => Box::new(Fjall::open(dir)),
        other => panic!("no engine {other}"),
    }
}

struct Request {
    row: (Vec<u8>, Vec<u8>),
    old: Option<Vec<u8>>,
    done: mpsc::SyncSender<()>,
}

fn row_key(revision: usize, object: usize) -> Vec<u8> {
    let mut key = (revision as u64).to_be_bytes().to_vec();
    key.extend_from_slice(format!("/registry/configmaps/default/object-{object}").as_bytes());
    key
}

/// A value that compresses about as badly as objects do in small blocks.
fn value(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + (state >> 59) as u8
    };
    (0..SIZE).map(step).collect()
}

/// Serves requests in group commits until every client is gone. Returns how many commits it made.
fn serve(engine: &mut dyn Engine, requests: &mpsc::Receiver<Request>) -> usize {
    let mut commits = 0;
    while let Ok(first) = requests.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
        let deletes: Vec<_> = batch.iter().filter_map(|request| request.old.clone()).collect();
        let (puts, done): (Vec<_>, Vec<_>) = batch.into_iter().map(|request| (request.row, request.done)).unzip();
        engine.write(&puts, &deletes);
        done.into_iter().for_each(|done| done.send(()).unwrap());
        commits += 1;
    }
    commits
}

fn run_clients(engine: &mut dyn Engine, first_revision: usize, replaced: Option<usize>) -> String {
    let (sender, requests) = mpsc::channel();
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut latencies = Vec::new();
                for object in (client..WRITES).step_by(CLIENTS) {
                    let (done, answer) = mpsc::sync_channel(1);
                    let row = (row_key(first_revision + object, object), value(first_revision + object));
                    let old = replaced.map(|revision| row_key(revision + object, object));
                    let sent = Instant::now();
                    sender.send(Request { row, old, done }).unwrap();
                    answer.recv().unwrap();
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    drop(sender);
    let commits = serve(engine, &requests);
    let elapsed = start.elapsed();
    let mut latencies: Vec<Duration> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100 - 1].as_secs_f64() * 1e3;
    let rate = WRITES as f64 / elapsed.as_secs_f64();
    format!("{rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} commits", at(50), at(99), commits)
}

/// Processor time and bytes written so far, by the whole process.
fn spent() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    (ticks as f64 / 100.0, written.parse().unwrap())
}

fn measured(engine: &str, what: &str, run: impl FnOnce() -> String) {
    let (cpu, written) = spent();
    let result = run();
    let (cpu_after, written_after) = spent();
    let (cpu, factor) =
        ((cpu_after - cpu) / WRITES as f64 * 1e6, (written_after - written) as f64 / (WRITES * SIZE) as f64);
    println!("{engine} {what}: {result}, {cpu:.0} us of CPU and {factor:.1} times its bytes for each write");
}

fn proc_status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| if entry.path().is_dir() { disk(&entry.path()) } else { entry.metadata().unwrap().blocks() * 512 })
        .sum()
}

fn phase_fresh(engine: &str, dir: &Path) {
    let before = proc_status("VmRSS");
    let start = Instant::now();
    let mut store = open(engine, dir);
    let opened = start.elapsed();
    store.write(&[(row_key(1, 1), value(1))], &[]);
    let first = start.elapsed();
    println!(
        "{engine} fresh open: {:.1} ms, first write done {:.1} ms, RSS +{} KiB, {} threads, disk {} KiB",
        opened.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        proc_status("VmRSS") - before,
        proc_status("Threads"),
        disk(dir) >> 10
    );
}

fn phase_write(engine: &str, dir: &Path) {
    let mut store = open(engine, dir);
    measured(engine, "nothing (clients alone)", || run_clients(&mut Nothing, 1, None));
    measured(engine, "create", || run_clients(&mut *store, 1, None));
    measured(engine, "update and drop the old row", || run_clients(&mut *store, 1_000_000, Some(1)));
    println!(
        "{engine} after that: RSS {} MiB (peak {}), disk {} MiB",
        proc_status("VmRSS") >> 10,
        proc_status("VmHWM") >> 10,
        disk(dir) >> 20
    );
}

/// Leaves 100,000 objects behind, a fifth of them rewritten, and dies.
fn phase_fill(engine: &str, dir: &Path) {
    let mut store = open(engine, dir);
    for first in (0..OBJECTS + OBJECTS / 5).step_by(100) {
        let puts: Vec<_> =
            (first..first + 100).map(|index| (row_key(index + 1, index % OBJECTS), value(index))).collect();
        let deletes: Vec<_> = (first..first + 100)
            .filter(|index| *index >= OBJECTS)
            .map(|index| row_key(index - OBJECTS + 1, index - OBJECTS))
            .collect();
        store.write(&puts, &deletes);
    }
    println!("{engine} filled: disk {} MiB", disk(dir) >> 20);
    std::process::abort();
}

fn phase_restart(engine: &str, dir: &Path) {
    let before = proc_status("VmRSS");
    let start = Instant::now();
    let store = open(engine, dir);
    let opened = start.elapsed();
    let (mut rows, mut bytes) = (0, 0);
    store.scan(&mut |_, value| {
        rows += 1;
        bytes += value.len();
    });
    let scanned = start.elapsed();
    assert_eq!((rows, bytes), (OBJECTS, OBJECTS * SIZE));
    println!(
        "{engine} restart: open {:.0} ms, all rows read after {:.0} ms, RSS +{} MiB, {} threads, disk {} MiB",
        opened.as_secs_f64() * 1e3,
        scanned.as_secs_f64() * 1e3,
        (proc_status("VmRSS") - before) >> 10,
        proc_status("Threads"),
        disk(dir) >> 20
    );
    let start = Instant::now();
    drop(store);
    println!("{engine} close: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [engine, phase, dir] = &args[..] {
        let run = match phase.as_str() {
            "fresh" => phase_fresh,
            "write" => phase_write,
            "fill" => phase_fill,
            _ => phase_restart,
        };
        return run(engine, Path::new(dir));
    }
    let root = args.first().map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    for engine in ["redb", "fjall"] {
        for phases in [&["fresh"][..], &["write"], &["fill", "restart", "restart"]] {
            let dir = root.join(format!("kedge-engines-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            for phase in phases {
                Command::new(std::env::current_exe().unwrap()).args([engine, phase]).arg(&dir).status().unwrap();
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}
