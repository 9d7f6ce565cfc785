//! Creates, reads and lists objects of one kilobyte through the store port, in the embedded store and in an etcd (whose URL
//! is the argument), and prints how long each took: the figures of `docs/benchmarks.md`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_store::{Condition, Durability, Expect, Key, ListRequest, Store, Template, Transaction, Write};
use kedge_store_embedded::EmbeddedStore;
use kedge_store_etcd::{EtcdStore, Options};

const CLIENTS: usize = 16;
const OBJECTS: usize = 4_000;
const READS: usize = 16_000;
const LISTS: usize = 20;

fn create(at: usize) -> Transaction {
    let key = Key::new(format!("/registry/bench/default/object-{at:06}"));
    let conditions = vec![Condition { key: key.clone(), expect: Expect::Absent }];
    let value = Template { bytes: vec![b'x'; 1024].into(), splice_at: Some(100) };
    Transaction { conditions, writes: vec![Write::Put { key, value, ttl: None }], durability: Durability::Durable }
}

async fn create_all(store: Arc<dyn Store>, client: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for at in (client..OBJECTS).step_by(CLIENTS) {
        let begun = Instant::now();
        store.commit(create(at)).await.unwrap();
        took.push(begun.elapsed());
    }
    took
}

async fn get_all(store: Arc<dyn Store>, client: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for at in (client..READS).step_by(CLIENTS) {
        let begun = Instant::now();
        let key = Key::new(format!("/registry/bench/default/object-{:06}", at % OBJECTS));
        assert!(store.get(&key).await.unwrap().is_some());
        took.push(begun.elapsed());
    }
    took
}

fn show(store: &str, what: &str, mut took: Vec<Duration>, begun: Instant) {
    took.sort_unstable();
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    let at = |share: usize| took[took.len() * share / 100];
    println!("{store:9} {what:7} {rate:9.0}/s  p50 {:?}  p99 {:?}", at(50), at(99));
}

async fn measure(name: &str, store: Arc<dyn Store>) {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(create_all(store.clone(), client))).collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.unwrap());
    }
    show(name, "create", took, begun);
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(get_all(store.clone(), client))).collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.unwrap());
    }
    show(name, "get", took, begun);
    let (begun, mut took) = (Instant::now(), Vec::new());
    for _ in 0..LISTS {
        let begun = Instant::now();
        let page = store.list(ListRequest { prefix: "/registry/bench/".into(), ..ListRequest::default() }).await;
        assert_eq!(page.unwrap().records.len(), OBJECTS);
        took.push(begun.elapsed());
    }
    show(name, "list", took, begun);
}

#[tokio::main]
async fn main() {
    let endpoint = std::env::args().nth(1).expect("the URL of an etcd is the argument");
    let directory = tempfile::TempDir::new().unwrap();
    let embedded = EmbeddedStore::open(directory.path(), kedge_store_embedded::Options::default()).unwrap();
    measure("embedded", Arc::new(embedded)).await;
    let etcd = EtcdStore::open(Options { endpoints: vec![endpoint], ..Options::default() }).await.unwrap();
    measure("etcd", Arc::new(etcd)).await;
}
