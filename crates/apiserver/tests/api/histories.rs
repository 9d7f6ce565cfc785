//! Histories of writes, and clients that list and watch meanwhile: each ends with the state that there is, and has seen
//! each change once and in order.
//!
//! The model is the log of what the server answered to the writes; when an object was deleted the store tells. Which writes
//! and clients there are comes out of a seed, which every failure names.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kedge_apiserver::Config;
use kedge_etcd_server::{Etcd, skipped_without_etcd};
use kedge_store::{ChangeKind, MemoryStore, Revision, Store};
use kedge_store_etcd::EtcdStore;
use serde_json::{Value, json};

use crate::custom::{TOOLS, define, tools};
use crate::harness::{Answer, Events, Harness};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const APPS: [&str; 3] = ["web", "api", "none"];
/// The object whose creation ends a history.
const LAST: &str = "last";

/// Numbers out of a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// What a client sees of an object.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    revision: u64,
    app: String,
    content: Value,
    ends: bool,
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn seen(object: &Value) -> Seen {
    Seen {
        revision: revision_of(object),
        app: object["metadata"]["labels"]["app"].as_str().unwrap_or_default().to_owned(),
        content: json!([object["data"], object["spec"]]),
        ends: object["metadata"]["deletionTimestamp"].is_string(),
    }
}

/// A change: at a revision an object is there as this, or no more.
type Record = (u64, String, Option<Seen>);
/// A change as a watch shows it.
type Change = (String, u64, String, Option<Seen>);

/// The revision at which an object was deleted, which the answer does not say: what the store tells. Others write, too.
async fn deletion(store: &dyn Store, prefix: &str, name: &str, after: u64) -> u64 {
    let key = format!("{prefix}{name}");
    let mut watch = store.watch(&key, Revision(after)).unwrap();
    loop {
        let changes = watch.next(16).await.unwrap();
        let own = changes.iter().find(|change| change.kind == ChangeKind::Deleted && change.record.key.as_str() == key);
        if let Some(change) = own {
            return change.revision.0;
        }
    }
}

struct Collection {
    path: &'static str,
    /// What the keys of its objects begin with.
    prefix: &'static str,
    log: Vec<Record>,
}

impl Collection {
    fn state_at(&self, revision: u64, app: Option<&str>) -> BTreeMap<String, Seen> {
        let mut state = BTreeMap::new();
        for (_, name, object) in self.log.iter().filter(|(at, _, _)| *at <= revision) {
            match object {
                Some(object) => state.insert(name.clone(), object.clone()),
                None => state.remove(name),
            };
        }
        state.retain(|_, object| app.is_none_or(|app| object.app == app));
        state
    }

    /// What a watch from a revision on has to show.
    fn changes_after(&self, revision: u64, app: Option<&str>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (at, name, object) in self.log.iter().filter(|(at, _, _)| *at > revision) {
            let before = self.state_at(at - 1, app).contains_key(name);
            let now = object.as_ref().filter(|object| app.is_none_or(|app| object.app == app));
            let kind = match (before, now.is_some()) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            changes.push((kind.to_owned(), *at, name.clone(), now.cloned()));
        }
        changes
    }
}

/// A client that has listed and watches on.
struct Client {
    collection: usize,
    app: Option<&'static str>,
    /// The revision that it listed.
    base: u64,
    /// The last one that it has seen.
    last: u64,
    events: Events,
    got: Vec<Change>,
}

/// Opens the store of a world, again after each restart.
type Open = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>>>;

struct World {
    seed: u64,
    random: Random,
    open: Open,
    harness: Harness,
    collections: Vec<Collection>,
    clients: Vec<Client>,
    /// What was forgotten.
    compacted: u64,
    writes: u64,
}

impl World {
    async fn new(seed: u64, open: Open) -> Self {
        let harness = Harness::over(open().await, Config::default()).await;
        define(&harness, tools(json!({"type": "object", "properties": {"v": {"type": "string"}}}))).await;
        let places = [(MAPS, "/registry/configmaps/default/"), (TOOLS, "/registry/a.io/tools/default/")];
        let collections = places.map(|(path, prefix)| Collection { path, prefix, log: Vec::new() }).into();
        Self { seed, random: Random(seed), open, harness, collections, clients: Vec::new(), compacted: 0, writes: 0 }
    }

    fn revision(&self) -> u64 {
        self.harness.store.revision().0
    }

    fn is_map(&self, collection: usize) -> bool {
        self.collections[collection].path == MAPS
    }

    /// An object of its own content.
    fn object(&mut self, collection: usize, name: &str, app: &str, finalizers: &Value) -> Value {
        self.writes += 1;
        let content = json!({"v": self.writes.to_string()});
        let metadata = json!({"name": name, "labels": {"app": app}, "finalizers": finalizers});
        match self.is_map(collection) {
            true => json!({"metadata": metadata, "data": content}),
            false => json!({"apiVersion": "a.io/v1", "kind": "Tool", "metadata": metadata, "spec": content}),
        }
    }

    /// Notes what an object is now, if that is new.
    async fn note(&mut self, collection: usize, name: &str) {
        let path = format!("{}/{name}", self.collections[collection].path);
        let answer = self.harness.get(&path).await;
        let own = &mut self.collections[collection];
        let known = own.log.iter().rev().find(|(_, own, _)| own == name).and_then(|(_, _, object)| object.clone());
        match answer.code {
            200 if known.as_ref().is_none_or(|known| known.revision != revision_of(&answer.json)) => {
                own.log.push((revision_of(&answer.json), name.to_owned(), Some(seen(&answer.json))));
            }
            404 => {
                let Some(known) = known else { return };
                let after = known.revision.max(self.compacted);
                let deleted = deletion(&*self.harness.store, own.prefix, name, after).await;
                own.log.push((deleted, name.to_owned(), None));
            }
            _ => {}
        }
    }

    /// One write, or several at once.
    async fn write(&mut self) {
        let collection = self.random.below(self.collections.len());
        let (name, app) = (self.random.one_of(&NAMES), self.random.one_of(&APPS));
        let path = self.collections[collection].path;
        let one = format!("{path}/{name}");
        match self.random.below(8) {
            0..=2 => {
                let finalizers = if self.random.below(4) == 0 { json!(["a.io/hold"]) } else { json!([]) };
                let object = self.object(collection, name, app, &finalizers);
                self.harness.post(path, object).await;
            }
            3 => {
                self.harness.patch(&one, json!({"metadata": {"labels": {"app": app}}})).await;
            }
            4 => {
                self.harness.delete(&one).await;
            }
            5 => {
                self.harness.patch(&one, json!({"metadata": {"finalizers": null}})).await;
            }
            6 => {
                let object = self.object(collection, name, app, &json!([]));
                self.harness.put(&one, object).await;
            }
            _ => return self.write_at_once(collection).await,
        }
        self.note(collection, name).await;
    }

    /// Several writers at once, each of an object of its own; the answers say in which order they came through.
    async fn write_at_once(&mut self, collection: usize) {
        let path = self.collections[collection].path;
        let objects = ["a", "b", "c"].map(|name| self.object(collection, name, APPS[0], &Value::Null));
        let [first, second, third] = objects.map(|mut object| {
            object["metadata"].as_object_mut().unwrap().remove("finalizers");
            let path = format!("{path}/{}", name_of(&object));
            (path, object)
        });
        let harness = &self.harness;
        let write = async |(path, object): (String, Value)| harness.patch(&path, object).await;
        let answers: [Answer; 3] = tokio::join!(write(first), write(second), write(third)).into();
        let mut written: Vec<Value> =
            answers.into_iter().filter(|answer| answer.code == 200).map(|answer| answer.json).collect();
        written.sort_by_key(revision_of);
        for object in written {
            self.collections[collection].log.push((revision_of(&object), name_of(&object), Some(seen(&object))));
        }
    }

    fn selector(app: Option<&str>) -> String {
        app.map(|app| format!("&labelSelector=app%3D{app}")).unwrap_or_default()
    }

    /// A list in one of the ways that there are, with writes between its pages: its revision, after its content was looked
    /// at. Absent where what was asked for is forgotten.
    async fn list(&mut self, collection: usize, app: Option<&'static str>) -> Option<u64> {
        let path = self.collections[collection].path;
        let selector = Self::selector(app);
        let recorded = self.collections[collection].log.iter().map(|(at, _, _)| *at).collect::<Vec<_>>();
        let past = if recorded.is_empty() { self.revision() } else { self.random.one_of(&recorded) };
        let (way, paged) = (self.random.below(5), self.random.below(2) == 0);
        let query = match way {
            0 => "&resourceVersion=0".to_owned(),
            1 => format!("&resourceVersion={past}&resourceVersionMatch=Exact"),
            2 => format!("&resourceVersion={past}&resourceVersionMatch=NotOlderThan"),
            _ => String::new(),
        };
        let limit = if paged && way != 0 { "&limit=2" } else { "" };
        let (mut found, mut next, mut revision) = (BTreeMap::new(), String::new(), None);
        loop {
            let page = match next.as_str() {
                "" => format!("{path}?x=1{selector}{query}{limit}"),
                token => format!("{path}?x=1{selector}{limit}&continue={token}"),
            };
            let answer = self.harness.get(&page).await;
            if answer.code == 410 {
                assert!(self.compacted > 0, "seed {}: {}", self.seed, answer.text);
                return None;
            }
            let list = answer.expect(200);
            let own = revision_of(&list);
            assert_eq!(*revision.get_or_insert(own), own, "seed {}: pages of one list", self.seed);
            for item in list["items"].as_array().unwrap() {
                assert!(found.insert(name_of(item), seen(item)).is_none(), "seed {}: {item} twice", self.seed);
            }
            next = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() {
                break;
            }
            self.write().await;
        }
        let revision = revision.unwrap();
        let expected = self.collections[collection].state_at(revision, app);
        assert_eq!(found, expected, "seed {}: {path} at {revision}, {query}{limit}{selector}", self.seed);
        Some(revision)
    }

    async fn watch(&self, collection: usize, app: Option<&str>, after: u64) -> Events {
        let (path, selector) = (self.collections[collection].path, Self::selector(app));
        let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={after}");
        Events::open(&self.harness, &format!("{path}?{query}{selector}")).await
    }

    async fn add_client(&mut self) {
        let collection = self.random.below(self.collections.len());
        let app = self.random.one_of(&[None, None, Some("web"), Some("api")]);
        let Some(base) = self.list(collection, app).await else { return };
        // Between its list and its watch others go on.
        self.write().await;
        let events = self.watch(collection, app, base).await;
        self.clients.push(Client { collection, app, base, last: base, events, got: Vec::new() });
    }

    /// A client whose watch begins with the state.
    async fn add_streaming_client(&mut self) {
        let collection = self.random.below(self.collections.len());
        let path = self.collections[collection].path;
        let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut events = Events::open(&self.harness, &format!("{path}?{query}")).await;
        let mut found = BTreeMap::new();
        let base = loop {
            let event = events.next().await.unwrap();
            let object = &event["object"];
            match event["type"].as_str().unwrap() {
                "ADDED" => assert!(found.insert(name_of(object), seen(object)).is_none(), "seed {}", self.seed),
                "BOOKMARK" => break revision_of(object),
                _ => panic!("seed {}: {event}", self.seed),
            }
        };
        assert_eq!(found, self.collections[collection].state_at(base, None), "seed {}: streamed", self.seed);
        self.clients.push(Client { collection, app: None, base, last: base, events, got: Vec::new() });
    }

    /// Another server over the same store; the watches of the old one end.
    async fn restart(&mut self) {
        let harness = Harness::over((self.open)().await, Config::default()).await;
        std::mem::replace(&mut self.harness, harness).server.shut_down();
    }

    /// A client reads what there is for it so far, and a bookmark where one is due; then its connection is cut, and it goes
    /// on from the last revision that it knows.
    async fn interrupt(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let index = self.random.below(self.clients.len());
        let mut client = self.clients.swap_remove(index);
        // The last event before the end of this watch is a bookmark.
        let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion={}", client.last);
        let path = format!("{}?{query}{}", self.collections[client.collection].path, Self::selector(client.app));
        client.events = Events::open(&self.harness, &path).await;
        let known = self.revision();
        let mut bookmark = None;
        while let Some(event) = client.events.next().await {
            assert_eq!(bookmark, None, "seed {}: {event} after the last bookmark", self.seed);
            if event["type"] == "ERROR" {
                assert!(self.is_forgotten(&event, client.last), "seed {}: {event} after {}", self.seed, client.last);
                break;
            }
            if event["type"] == "BOOKMARK" {
                bookmark = Some(revision_of(&event["object"]));
            }
            self.take(&mut client, &event);
        }
        if let Some(bookmark) = bookmark {
            assert!(bookmark >= known, "seed {}: a bookmark at {bookmark} when {known} was known", self.seed);
        }
        client.events = self.watch(client.collection, client.app, client.last).await;
        self.clients.push(client);
    }

    /// Whether an error says rightly that what came after a revision is not kept any more.
    fn is_forgotten(&self, event: &Value, after: u64) -> bool {
        event["object"]["code"] == 410 && after < self.compacted
    }

    /// Notes an event that a client was shown.
    fn take(&self, client: &mut Client, event: &Value) {
        let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
        let revision = revision_of(object);
        assert!(revision >= client.last, "seed {}: {event} after {}", self.seed, client.last);
        client.last = revision;
        if kind != "BOOKMARK" {
            let now = Some(seen(object)).filter(|_| kind != "DELETED");
            client.got.push((kind.to_owned(), revision, name_of(object), now));
        }
    }

    async fn compact(&mut self) {
        self.compacted = self.revision();
        self.harness.store.compact(Revision(self.compacted)).await.unwrap();
    }

    /// Reads a client's events to the end of the history, as clients do: an ended watch is resumed where it was, and one
    /// whose place is forgotten begins again with a list.
    async fn follow(&mut self, mut client: Client) {
        loop {
            let Some(event) = client.events.next().await else {
                client.events = self.watch(client.collection, client.app, client.last).await;
                continue;
            };
            if event["type"] == "ERROR" {
                assert!(self.is_forgotten(&event, client.last), "seed {}: {event} after {}", self.seed, client.last);
                let base = self.list_at_the_end(client.collection, client.app).await;
                let events = self.watch(client.collection, client.app, base).await;
                client = Client { base, last: base, events, got: Vec::new(), ..client };
                break;
            }
            self.take(&mut client, &event);
            if event["object"]["metadata"]["name"] == LAST {
                break;
            }
        }
        let expected = self.collections[client.collection].changes_after(client.base, client.app);
        assert_eq!(client.got, expected, "seed {}: after {} with {:?}", self.seed, client.base, client.app);
    }

    async fn list_at_the_end(&mut self, collection: usize, app: Option<&'static str>) -> u64 {
        let path = self.collections[collection].path;
        let list = self.harness.get(&format!("{path}?x=1{}", Self::selector(app))).await.expect(200);
        let items = list["items"].as_array().unwrap();
        let found: BTreeMap<String, Seen> = items.iter().map(|item| (name_of(item), seen(item))).collect();
        assert_eq!(found, self.collections[collection].state_at(revision_of(&list), app), "seed {}", self.seed);
        revision_of(&list)
    }

    /// A whole history.
    async fn run(mut self) {
        for _ in 0..60 {
            match self.random.below(20) {
                0..=3 => self.add_client().await,
                4 => self.add_streaming_client().await,
                5 if self.random.below(3) == 0 => self.restart().await,
                6 if self.random.below(3) == 0 => self.compact().await,
                7 if self.random.below(3) == 0 => self.interrupt().await,
                _ => self.write().await,
            }
        }
        for collection in 0..self.collections.len() {
            // Who selects sees the end too.
            for (step, app) in ["web", "api"].into_iter().enumerate() {
                let path = self.collections[collection].path;
                let object = self.object(collection, LAST, app, &json!([]));
                match step {
                    0 => self.harness.post(path, object).await.expect(201),
                    _ => self.harness.patch(&format!("{path}/{LAST}"), object).await.expect(200),
                };
                self.note(collection, LAST).await;
                self.end(collection, app).await;
            }
        }
        assert!(self.clients.is_empty());
    }

    /// Lets those clients of a collection read on to whom its last object has just been shown.
    async fn end(&mut self, collection: usize, app: &str) {
        let is_done = |client: &Client| client.collection == collection && client.app.unwrap_or("web") == app;
        let (done, rest) = std::mem::take(&mut self.clients).into_iter().partition(is_done);
        self.clients = rest;
        for client in done {
            self.follow(client).await;
        }
    }
}

// Time passes by itself where everybody waits for it, so that watches come to their end.
#[tokio::test(start_paused = true)]
async fn lists_and_watches_see_exactly_the_changes() {
    for seed in 0..16 {
        let store = MemoryStore::new();
        let open: Open = Box::new(move || {
            let store: Arc<dyn Store> = Arc::new(store.clone());
            futures::future::ready(store).boxed()
        });
        World::new(seed, open).await.run().await;
    }
}

/// The same with a store of its own for each server, over one etcd.
#[tokio::test]
async fn lists_and_watches_over_an_etcd_see_exactly_the_changes() {
    if skipped_without_etcd("lists_and_watches_over_an_etcd_see_exactly_the_changes") {
        return;
    }
    let etcd = Etcd::start();
    for seed in 0..5 {
        let options = kedge_store_etcd::Options {
            endpoints: etcd.endpoints(),
            prefix: format!("/world-{seed}"),
            ..kedge_store_etcd::Options::default()
        };
        let open: Open = Box::new(move || {
            let options = options.clone();
            async move { Arc::new(EtcdStore::open(options).await.unwrap()) as Arc<dyn Store> }.boxed()
        });
        World::new(seed, open).await.run().await;
    }
}
