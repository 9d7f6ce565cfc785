//! Files out of ConfigMaps, Secrets and the pod itself: content, modes, mappings and who may read them.

use kedge_e2e::{Node, eventually};
use serde_json::{Value, json};

use super::{apply_pod, names, run, waiting};

/// A file that a container sees.
struct File {
    path: String,
    mode: &'static str,
    content: &'static str,
}

/// A volume and what is in it.
struct Case {
    volume: Value,
    files: Vec<File>,
}

/// The objects that all volumes are made of; other namespaces have a secret of the same name.
pub(super) fn make_objects(node: &Node) {
    let data = json!({"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"});
    let binary = "3gAA/v8=";
    let objects = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "text"}, "data": data,
               "binaryData": {"dump.bin": binary}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "text"}, "stringData": data,
               "data": {"dump.bin": binary}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "text", "namespace": "other"},
               "stringData": {"data-1": "of another namespace"}}),
    ];
    node.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
}

/// The sources: their short name, what a volume says about them, and whether a projected volume does.
fn sources() -> Vec<(String, Value, bool)> {
    let mut all = Vec::new();
    for projected in [false, true] {
        let prefix = if projected { "projected-" } else { "" };
        all.push((format!("{prefix}config"), json!({"configMap": {"name": "text"}}), projected));
        let key = if projected { "name" } else { "secretName" };
        all.push((format!("{prefix}secret"), json!({"secret": {key: "text"}}), projected));
    }
    all
}

fn volume(name: &str, mut source: Value, projected: bool, mode: Option<u32>, items: Option<Value>) -> Value {
    let kind = source.as_object().and_then(|object| object.keys().next().cloned()).unwrap_or_default();
    if let Some(items) = items {
        source[&kind]["items"] = items;
    }
    let mut volume = if projected { json!({"projected": {"sources": [source]}}) } else { source };
    if let Some(mode) = mode {
        let place = if projected { "projected" } else { kind.as_str() };
        volume[place]["defaultMode"] = json!(mode);
    }
    volume["name"] = json!(name);
    volume
}

fn file(volume: &str, path: &str, mode: &'static str, content: &'static str) -> File {
    File { path: format!("/v/{volume}/{path}"), mode, content }
}

/// Volumes of keys: plain, with a mode for all, mapped, mapped with a mode of its own, and the same twice.
fn of_keys() -> Vec<Case> {
    let mapped = |mode: Option<u32>| {
        let mut item = json!({"key": "data-2", "path": "path/to/data-2"});
        if let Some(mode) = mode {
            item["mode"] = json!(mode);
        }
        Some(json!([item]))
    };
    let mut cases = Vec::new();
    for (name, source, projected) in sources() {
        let mut add = |form: &str, mode: Option<u32>, items: Option<Value>, path: &str, shown, content| {
            let name = format!("{name}-{form}");
            let files = vec![file(&name, path, shown, content)];
            cases.push(Case { volume: volume(&name, source.clone(), projected, mode, items), files });
        };
        add("plain", None, None, "data-1", "644", "value-1");
        add("twice", None, None, "data-3", "644", "value-3");
        add("mode", Some(0o400), None, "data-1", "400", "value-1");
        add("mapped", None, mapped(None), "path/to/data-2", "644", "value-2");
        add("item", None, mapped(Some(0o400)), "path/to/data-2", "400", "value-2");
    }
    cases
}

/// Volumes of the pod's own facts; `main` has limits, `unlimited` has none.
fn of_the_pod() -> Vec<Case> {
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let amount = |path: &str, container: &str, resource: &str| json!({"path": path, "resourceFieldRef": {"containerName": container, "resource": resource}});
    let mut private = field("private", "metadata.name");
    private["mode"] = json!(0o400);
    let items = json!([
        field("podname", "metadata.name"),
        private,
        amount("cpu_limit", "main", "limits.cpu"),
        amount("cpu_request", "main", "requests.cpu"),
        amount("memory_limit", "main", "limits.memory"),
        amount("memory_request", "main", "requests.memory"),
        amount("default_cpu", "unlimited", "limits.cpu"),
        amount("default_memory", "unlimited", "limits.memory"),
        field("labels", "metadata.labels"),
        field("annotations", "metadata.annotations"),
    ]);
    let mut cases = Vec::new();
    for projected in [false, true] {
        let prefix = if projected { "projected-" } else { "" };
        let name = format!("{prefix}info");
        let files = vec![
            file(&name, "podname", "644", "content"),
            file(&name, "private", "400", "content"),
            file(&name, "cpu_limit", "644", "2"),
            file(&name, "cpu_request", "644", "1"),
            file(&name, "memory_limit", "644", "67108864"),
            file(&name, "memory_request", "644", "33554432"),
        ];
        let all = volume(&name, json!({"downwardAPI": {}}), projected, None, Some(items.clone()));
        cases.push(Case { volume: all, files });
        let name = format!("{prefix}info-mode");
        let files = vec![file(&name, "podname", "400", "content")];
        let items = json!([field("podname", "metadata.name")]);
        let volume = volume(&name, json!({"downwardAPI": {}}), projected, Some(0o400), Some(items));
        cases.push(Case { volume, files });
    }
    cases.push(combined());
    cases
}

/// Everything that can be projected, in one volume.
fn combined() -> Case {
    let sources = json!([
        {"configMap": {"name": "text", "items": [{"key": "data-1", "path": "config"}]}},
        {"secret": {"name": "text", "items": [{"key": "data-2", "path": "secret"}]}},
        {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]);
    let file = |path, content| file("combined", path, "644", content);
    let files = vec![file("config", "value-1"), file("secret", "value-2"), file("podname", "content")];
    Case { volume: json!({"name": "combined", "projected": {"sources": sources}}), files }
}

/// What only the group may read.
fn of_the_group() -> Vec<Case> {
    let cases = sources().into_iter().map(|(name, source, projected)| {
        let files = vec![file(&name, "data-1", "440", "value-1")];
        Case { volume: volume(&name, source, projected, Some(0o440), None), files }
    });
    cases.collect()
}

fn all_of_content() -> Vec<Case> {
    of_keys().into_iter().chain(of_the_pod()).collect()
}

pub(super) fn start(node: &Node) {
    let volumes: Vec<Value> = all_of_content().into_iter().map(|case| case.volume).collect();
    let names_of_all = names(&volumes);
    let mut main = waiting("main", None, &names_of_all);
    main["resources"] =
        json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let unlimited = waiting("unlimited", Some(1000), &names_of_all);
    apply_pod(node, "content", json!({}), vec![main, unlimited], volumes);
    let volumes: Vec<Value> = of_the_group().into_iter().map(|case| case.volume).collect();
    let container = waiting("c", Some(1000), &names(&volumes));
    apply_pod(node, "group", json!({"fsGroup": 1001}), vec![container], volumes);
}

pub(super) fn check(node: &Node) {
    node.ready("content");
    node.ready("group");
    let cases = all_of_content();
    has_files(node, "content", "main", cases.iter().flat_map(|case| &case.files));
    // What everybody may read, somebody else reads.
    let open = cases.iter().flat_map(|case| &case.files).filter(|file| file.mode == "644");
    has_files(node, "content", "unlimited", open);
    let refused = node.kubectl.try_run(&["exec", "content", "-c", "unlimited", "--", "cat", "/v/config-mode/data-1"]);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.all());
    has_files(node, "group", "c", of_the_group().iter().flat_map(|case| &case.files));
    let binary =
        "for v in config secret projected-config projected-secret; do busybox od -An -tx1 /v/$v-plain/dump.bin; done";
    assert_eq!(run(node, "content", "main", binary), " de 00 00 fe ff\n".repeat(4));
    without_limits(node);
}

/// One look for all files: path, mode and content of each.
fn has_files<'a>(node: &Node, pod: &str, container: &str, files: impl Iterator<Item = &'a File>) {
    let files: Vec<&File> = files.collect();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let script = format!("for f in {}; do echo \"$f $(busybox stat -L -c %a $f) $(cat $f)\"; done", paths.join(" "));
    let seen = run(node, pod, container, &script);
    let expected: Vec<String> =
        files.iter().map(|file| format!("{} {} {}", file.path, file.mode, file.content)).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected, "{pod}/{container}");
}

/// A container without limits may use what the node has for pods.
fn without_limits(node: &Node) {
    let allocatable = &node.get("node", "node-1")["status"]["allocatable"];
    let cpu = allocatable["cpu"].as_str().expect("a node has CPUs").to_owned();
    for volume in ["info", "projected-info"] {
        let path = format!("/v/{volume}");
        let seen = run(node, "content", "main", &format!("cat {path}/default_cpu; echo; cat {path}/default_memory"));
        let (seen_cpu, seen_memory) = seen.split_once('\n').expect("two lines");
        assert_eq!(seen_cpu, cpu, "{volume}");
        let memory: i64 = seen_memory.trim().parse().expect("bytes");
        let shown = allocatable["memory"].as_str().expect("a node has memory");
        let kib: i64 = shown.trim_end_matches("Ki").parse().expect("Ki");
        assert_eq!(memory / 1024, kib, "{volume}: {shown}");
    }
}

const LABELS_AND_ANNOTATIONS: &str =
    "for v in info projected-info; do cat /v/$v/labels; echo; cat /v/$v/annotations; echo; done";

/// Gives the pod another label and another annotation.
pub(super) fn change(node: &Node) {
    let before = run(node, "content", "main", LABELS_AND_ANNOTATIONS);
    assert_eq!(before.matches("key1=\"value1\"").count(), 2, "{before}");
    assert_eq!(before.matches("builder=\"bar\"").count(), 2, "{before}");
    node.kubectl.run(&["label", "pod", "content", "key3=value3"]);
    node.kubectl.run(&["annotate", "--overwrite", "pod", "content", "builder=foo"]);
}

/// They are in the files.
pub(super) fn check_changes(node: &Node) {
    eventually("new labels and annotations in both volumes", super::optional::LIVE, || {
        let seen = run(node, "content", "main", LABELS_AND_ANNOTATIONS);
        let both = |text: &str| seen.matches(text).count() == 2;
        if both("key3=\"value3\"") && both("builder=\"foo\"") { Ok(()) } else { Err(seen) }
    });
}
