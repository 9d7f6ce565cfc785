//! Every fixture in which a rule finds something, as the rules' own tests make them.
//!
//! The tests of all rules are run once more, in a process of their own that writes down what their rules found something
//! in: a new rule takes part without a word about it. Invariant: a fixture is what a rule's own test holds to be its cause.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::object::subject;
use crate::rules::Rule;
use crate::rules::fixtures::*;

/// Names the file that fixtures are written to.
const FILE: &str = "KEDGE_FIXTURES_FILE";

/// What a rule found something in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fixture {
    /// The rule.
    pub(crate) id: String,
    /// What was seen.
    pub(crate) items: Vec<Item>,
}

/// Writes a fixture down, where that was asked for.
pub(crate) fn record(rule: &Rule, evidence: &Evidence) {
    let Some(path) = std::env::var_os(FILE) else { return };
    let fixture = Fixture { id: rule.id.to_owned(), items: evidence.items.to_vec() };
    let mut line = serde_json::to_vec(&fixture).expect("evidence can be written");
    line.push(b'\n');
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the file can be opened");
    file.write_all(&line).expect("the file can be written");
}

/// Every fixture, in the order of ids, each once.
pub(crate) fn fixtures() -> Vec<Fixture> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("kedge-fixtures-{}-{run}.jsonl", std::process::id()));
    let own = std::env::current_exe().expect("this program is a file");
    let mut tests = Command::new(own);
    tests.args(["rules::", "--test-threads=1", "--quiet"]).env(FILE, &path);
    let output = tests.output().expect("this program runs");
    let written = std::fs::read_to_string(&path);
    // Nothing else is left to do with it where it cannot be removed.
    drop(std::fs::remove_file(&path));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines: BTreeSet<String> = written.expect("fixtures were written").lines().map(str::to_owned).collect();
    lines.iter().map(|line| serde_json::from_str(line).expect("a fixture can be read")).map(whole).collect()
}

/// A fixture as one whole cluster would show it: tests of one rule leave out what that rule does not ask for, which among
/// another's evidence would say that it is not there.
fn whole(mut fixture: Fixture) -> Fixture {
    fixture.items.extend(objects_of_events(&fixture));
    let has_processes = fixture.items.iter().any(|item| matches!(item.fact, Fact::Process(_)));
    for (program, absent_in) in [("/usr/bin/kubelet", "E6"), ("/sbin/multipathd", "I7")] {
        if has_processes && fixture.id != absent_in {
            fixture.items.push(process(program, 'S', ""));
        }
    }
    for item in &mut fixture.items {
        if let Fact::Document { name, content: Ok(content), .. } = &mut item.fact
            && (name == "kubelet" && content.is_object() && fixture.id != "A13")
        {
            content["staticPodPath"] = json!("/etc/kubernetes/manifests");
        }
    }
    fixture
}

/// The objects that events are about, where a fixture has the event alone.
fn objects_of_events(fixture: &Fixture) -> Vec<Item> {
    let known: crate::Items = fixture.items.iter().cloned().collect();
    let mut objects: Vec<Value> = Vec::new();
    for item in &fixture.items {
        let Fact::Object(event) = &item.fact else { continue };
        let about = &event["involvedObject"];
        let object = json!({
            "kind": about["kind"], "spec": {"replicas": 1, "nodeName": "one"}, "status": {"replicas": 0},
            "metadata": {"namespace": about["namespace"], "name": about["name"], "creationTimestamp": now().to_string()},
        });
        if event["kind"] == "Event" && known.of_subject(&subject(&object)).is_none() && !objects.contains(&object) {
            objects.push(object);
        }
    }
    objects.into_iter().map(|object| Item { place: Place::Cluster, ..on("one", Fact::Object(object)) }).collect()
}

/// The same trouble on another machine; nothing where the fixture is about several.
pub(crate) fn elsewhere(fixture: &Fixture) -> Option<Fixture> {
    let text = serde_json::to_string(fixture).expect("a fixture can be written");
    if text.contains("\"two\"") {
        return None;
    }
    let text = text.replace("\"one\"", "\"three\"").replace("-one\"", "-three\"");
    serde_json::from_str(&text).ok()
}

/// Whether two fixtures say different things of the same thing: they cannot both be seen.
pub(crate) fn contradict(one: &Fixture, other: &Fixture) -> bool {
    one.items.iter().any(|item| {
        let key = key(item);
        key.is_some() && other.items.iter().any(|second| self::key(second) == key && !is_same(item, second))
    })
}

fn is_same(one: &Item, other: &Item) -> bool {
    serde_json::to_value(&one.fact).ok() == serde_json::to_value(&other.fact).ok()
}

/// What there is one of; nothing for what there may be many of.
fn key(item: &Item) -> Option<String> {
    let place = &item.place;
    Some(match &item.fact {
        Fact::Object(object) if object["kind"] == "Event" => return None,
        Fact::Object(object) => subject(object).to_string(),
        Fact::Manifest(manifest) => format!("{place:?} {}", manifest.path),
        Fact::Setting { name, .. } => format!("{place:?} setting {name}"),
        Fact::Document { name, .. } => format!("{place:?} document {name}"),
        Fact::File(file) => format!("{place:?} {}", file.path),
        Fact::Unit(unit) => format!("{place:?} unit {}", unit.name),
        Fact::Call { target, .. } => format!("{place:?} {target}"),
        _ => return None,
    })
}
