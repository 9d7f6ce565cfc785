//! kill -9: a process that writes as fast as it can is killed, and everything it was told to be written is there.
//!
//! The test runs itself as that process, so that it needs no other binary.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use kedge_store::{Durability, Key, Revision, Store, Template, Transaction, Write};
use kedge_store_embedded::{EmbeddedError, EmbeddedStore, Options};

const DIRECTORY: &str = "KEDGE_CRASH_DIRECTORY";
const LINES: usize = 1500;

fn writing(key: &str, value: &str, durability: Durability) -> Transaction {
    let value = Template { bytes: Bytes::copy_from_slice(value.as_bytes()), splice_at: None };
    let writes = vec![Write::Put { key: Key::new(key), value, ttl: None }];
    Transaction { conditions: vec![], writes, durability }
}

/// Writes until it is killed, and says so after each answer.
fn write_forever(directory: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(directory, Options::default()).unwrap());
        let clients = (0..8).map(|client| tokio::spawn(write_one_key_forever(Arc::clone(&store), client)));
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    });
    unreachable!("the clients write until the process is killed")
}

async fn write_one_key_forever(store: Arc<EmbeddedStore>, client: usize) {
    for count in 0_u64.. {
        let key = format!("/registry/pods/{client}");
        let committed = store.commit(writing(&key, &count.to_string(), Durability::Durable)).await.unwrap();
        say(&format!("durable {key} {count} {}", committed.revision));
        let lease = writing(&format!("/registry/leases/{client}"), "x", Durability::Relaxed);
        let committed = store.commit(lease).await.unwrap();
        say(&format!("relaxed lease 0 {}", committed.revision));
    }
}

/// One line in one write, so that a kill does not cut it in two.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// What the killed process was told: the last acknowledged value of each key, and the highest revision.
#[derive(Default)]
struct Told {
    values: BTreeMap<String, u64>,
    durable: Revision,
    highest: Revision,
}

impl Told {
    /// Takes in a line. Says whether it was one of the writer's.
    fn hear(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.split(' ').collect();
        let [kind @ ("durable" | "relaxed"), key, count, revision] = words[..] else { return false };
        let revision = Revision(revision.parse().unwrap());
        if kind == "durable" {
            self.values.insert(key.to_owned(), count.parse().unwrap());
            self.durable = self.durable.max(revision);
        }
        self.highest = self.highest.max(revision);
        true
    }
}

fn write_and_kill(directory: &Path) -> Told {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args(["--exact", "kill_9_loses_nothing_acknowledged", "--nocapture"]).env(DIRECTORY, directory);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = Told::default();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut heard = 0;
    while heard < LINES {
        heard += usize::from(told.hear(&lines.next().expect("the writer goes on")));
    }
    match EmbeddedStore::open(directory, Options::default()) {
        Err(EmbeddedError::Locked { pid, path }) => assert_eq!((pid, &*path), (Some(child.id()), directory)),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("two processes have the same directory"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died counts too.
    for line in lines {
        told.hear(&line);
    }
    told
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        std::thread::spawn(move || write_forever(Path::new(&directory))).join().unwrap();
    }
    let directory = tempfile::TempDir::new().unwrap();
    for round in 0..3 {
        let told = write_and_kill(directory.path());
        let store = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
        assert!(store.revision() >= told.highest, "round {round}: the revision went back");
        for (key, acknowledged) in &told.values {
            let record = store.get(&Key::new(&**key)).await.unwrap().expect("it was acknowledged");
            let found: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
            assert!(found >= *acknowledged, "round {round}: {key} is {found}, {acknowledged} was acknowledged");
        }
        // A client that stood at the last answer goes on from there.
        let mut resumed = store.watch("/registry/pods/", told.durable).unwrap();
        let again = writing("/registry/pods/after", "x", Durability::Durable);
        let revision = store.commit(again).await.unwrap().revision;
        let mut last = Revision(0);
        while last < revision {
            last = resumed.next(100).await.unwrap().last().unwrap().revision;
        }
        store.close().await.unwrap();
        drop(store);
    }
}
