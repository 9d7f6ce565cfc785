//! Measures the embedded store as a whole: start, writes of 32 clients, memory, watch fan-out, restart.
//!
//! `workload [DIR]` works in a fresh directory under DIR. Not part of the product; the figures of the product are taken
//! by `cargo xtask bench`, over TLS.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kedge_store::{Durability, Key, ListRequest, Store, Template, Transaction, Write};
use kedge_store_embedded::{EmbeddedStore, Options};

const CLIENTS: usize = 32;

fn writing(key: String, size: usize, durability: Durability) -> Transaction {
    let value = Template { bytes: Bytes::from(vec![b'x'; size]), splice_at: Some(10) };
    Transaction { conditions: vec![], writes: vec![Write::Put { key: Key::new(key), value, ttl: None }], durability }
}

async fn write_all(store: &Arc<EmbeddedStore>, what: &str, count: usize, size: usize, kind: &'static str) {
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for object in (client..count).step_by(CLIENTS) {
                    let sent = Instant::now();
                    let key = format!("/registry/{kind}/default/object-{object}");
                    store.commit(writing(key, size, Durability::Durable)).await.unwrap();
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.unwrap());
    }
    let elapsed = start.elapsed();
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100 - 1].as_secs_f64() * 1e3;
    println!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; {}",
        count as f64 / elapsed.as_secs_f64(),
        at(50),
        at(99),
        memory()
    );
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    format!("RSS {:.1} MiB, {} threads", field("VmRSS") as f64 / 1024.0, field("Threads"))
}

async fn fan_out(store: &Arc<EmbeddedStore>) {
    const UPDATES: usize = 1000;
    let start = Instant::now();
    let watchers: Vec<_> = (0..100)
        .map(|_| {
            let mut watch = store.watch("/registry/pods/", store.revision()).unwrap();
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < UPDATES {
                    seen += watch.next(1000).await.unwrap().len();
                }
            })
        })
        .collect();
    for index in 0..UPDATES {
        store
            .commit(writing(format!("/registry/pods/default/object-{index}"), 2048, Durability::Durable))
            .await
            .unwrap();
    }
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let rate = 100.0 * UPDATES as f64 / start.elapsed().as_secs_f64();
    println!("100 watchers, {UPDATES} updates one after the other: {rate:.0} events/s");
}

async fn lists(store: &Arc<EmbeddedStore>) {
    let start = Instant::now();
    let at = store.list(ListRequest { prefix: "/registry/pods/".into(), ..ListRequest::default() }).await.unwrap();
    let whole = start.elapsed();
    let start = Instant::now();
    let request = ListRequest { prefix: "/registry/pods/".into(), limit: Some(500), ..ListRequest::default() };
    let page = store.list(request).await.unwrap();
    println!(
        "list of {} pods: {whole:.1?}; page of 500 with {} remaining: {:.1?}",
        at.records.len(),
        page.remaining,
        start.elapsed()
    );
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    let start = Instant::now();
    let store = Arc::new(EmbeddedStore::open(dir, Options::default()).unwrap());
    println!("open with {} keys: {:.1?}; {}", store.stats().keys, start.elapsed(), memory());
    store
}

async fn run(dir: &Path) {
    let store = open(dir);
    write_all(&store, "create 10,000 of 1 KiB", 10_000, 1024, "configmaps").await;
    write_all(&store, "create 10,000 of 2 KiB", 10_000, 2048, "pods").await;
    for _ in 0..3 {
        write_all(&store, "update 10,000 of 2 KiB", 10_000, 2048, "pods").await;
    }
    let stats = store.stats();
    println!(
        "live values {} MiB, history {} changes, slowest sync {:?}",
        stats.value_bytes >> 20,
        stats.history,
        stats.slowest_sync.unwrap()
    );
    lists(&store).await;
    fan_out(&store).await;
    write_all(&store, "create 80,000 of 1 KiB", 80_000, 1024, "secrets").await;
    let closed = Instant::now();
    store.close().await.unwrap();
    println!("close: {:.1?}", closed.elapsed());
}

fn main() {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = root.join(format!("kedge-workload-{}", std::process::id()));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if std::env::args().nth(2).is_some() {
        return drop(open(&root));
    }
    runtime().block_on(run(&dir));
    std::thread::sleep(Duration::from_millis(10));
    // A process of its own, so that its memory is that of a restart.
    std::process::Command::new(std::env::current_exe().unwrap()).arg(&dir).arg("reopen").status().unwrap();
    println!("file {} MiB", std::fs::metadata(dir.join("store.redb")).unwrap().len() >> 20);
    std::fs::remove_dir_all(&dir).unwrap();
}
