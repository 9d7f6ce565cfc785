//! Evidence in small, for the tests of rules.

pub(crate) use jiff::Timestamp;
pub(crate) use serde_json::{Value, json};

pub(crate) use crate::evidence::{Evidence, Item, Place};
pub(crate) use crate::facts::{
    CertificateFact, Fact, FileFact, FileKind, FileSystemFact, LogFact, LogSource, ManifestFact, MeasureFact,
    NetworkFact, ProcessFact, UnitFact,
};
use crate::rules::Rule;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

/// The texts of what a rule finds among objects.
pub(crate) fn found(rule: &Rule, objects: impl IntoIterator<Item = Value>) -> Vec<String> {
    let item =
        |object| Item { time: None, place: Place::Cluster, origin: "kubectl".to_owned(), fact: Fact::Object(object) };
    found_among(rule, objects.into_iter().map(item))
}

/// The texts of what a rule finds among items.
pub(crate) fn found_among(rule: &Rule, items: impl IntoIterator<Item = Item>) -> Vec<String> {
    let evidence = Evidence { gathered: now(), items: items.into_iter().collect(), unseen: Vec::new() };
    findings(rule, &evidence).into_iter().map(|finding| finding.text).collect()
}

/// What a rule finds in evidence. Every fixture goes through here, and so becomes one of the corpus.
pub(crate) fn findings(rule: &Rule, evidence: &Evidence) -> Vec<crate::Finding> {
    let found = (rule.find)(evidence);
    if !found.is_empty() {
        crate::corpus::record(rule, evidence);
    }
    found
}

pub(crate) fn on(node: &str, fact: Fact) -> Item {
    Item { time: None, place: Place::Node(node.to_owned()), origin: "the machine".to_owned(), fact }
}

pub(crate) fn pod(namespace: &str, name: &str, spec: Value, status: Value) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": now().to_string()},
        "spec": spec, "status": status,
    })
}

/// The same object, made an hour ago.
pub(crate) fn old(mut object: Value) -> Value {
    let hour_ago = Timestamp::from_second(now().as_second() - 3600).expect("a time");
    object["metadata"]["creationTimestamp"] = json!(hour_ago.to_string());
    object
}

pub(crate) fn node(name: &str, conditions: Value) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}, "status": {"conditions": conditions}})
}

/// An event on an object, in its namespace if its kind has any.
pub(crate) fn event_of(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    let mut event = json!({
        "kind": "Event", "metadata": {"namespace": "a", "name": format!("{name}.1")}, "type": "Warning",
        "reason": reason, "message": message, "involvedObject": {"kind": kind, "namespace": "a", "name": name},
    });
    if matches!(kind, "Node" | "PersistentVolume") {
        event["metadata"]["namespace"] = json!("default");
        event["involvedObject"] = json!({"kind": kind, "name": name});
    }
    event
}

pub(crate) fn manifest(path: &str, pod: Result<Value, String>) -> Item {
    on("one", Fact::Manifest(ManifestFact { path: path.to_owned(), pod }))
}

pub(crate) fn file(path: &str, kind: FileKind) -> Item {
    on("one", Fact::File(FileFact { path: path.to_owned(), kind }))
}

pub(crate) fn setting(name: &str, value: Option<&str>) -> Item {
    on("one", Fact::Setting { name: name.to_owned(), value: value.map(str::to_owned) })
}

/// A leaf's certificate, valid from and until so many days from now.
pub(crate) fn certificate(path: &str, from: i64, until: i64) -> Item {
    let day = |days: i64| Timestamp::from_second(now().as_second() + days * 86_400).expect("a time");
    let (path, common_name) = (path.to_owned(), "x".to_owned());
    on(
        "one",
        Fact::Certificate(CertificateFact {
            path,
            common_name,
            not_before: day(from),
            not_after: day(until),
            is_authority: false,
            issuer: String::new(),
            names: Vec::new(),
            fingerprint: String::new(),
            served_by: None,
        }),
    )
}

/// A scheduler's manifest with one flag, and one file of the host mounted where kubeadm mounts its kubeconfig.
pub(crate) fn scheduler_manifest(flag: &str, host: &str, kind: &str) -> Vec<Item> {
    let pod = pod(
        "kube-system",
        "kube-scheduler",
        json!({
            "containers": [{
                "name": "kube-scheduler", "command": ["kube-scheduler", flag],
                "volumeMounts": [{"name": "kubeconfig", "mountPath": "/etc/kubernetes/scheduler.conf", "readOnly": true}],
            }],
            "volumes": [{"name": "kubeconfig", "hostPath": {"path": host, "type": kind}}],
        }),
        json!({}),
    );
    vec![manifest("/etc/kubernetes/manifests/kube-scheduler.yaml", Ok(pod))]
}

/// A file system: its size and what is free, in bytes and in inodes.
pub(crate) fn disk(path: &str, size: u64, available: u64, inodes: u64, inodes_free: u64) -> Item {
    on("one", Fact::FileSystem(FileSystemFact { path: path.to_owned(), size, available, inodes, inodes_free }))
}

/// A line that a service of the machine wrote.
pub(crate) fn logged(unit: &str, text: &str) -> Item {
    on("one", Fact::Log(LogFact { source: LogSource::Unit(unit.to_owned()), text: text.to_owned() }))
}

/// A line that a command of a person printed.
pub(crate) fn pasted(command: &str, text: &str) -> Item {
    on("one", Fact::Log(LogFact { source: LogSource::Command(command.to_owned()), text: text.to_owned() }))
}

/// A unit of the service manager.
pub(crate) fn unit(name: &str, active: &str, enabled: &str) -> Item {
    let (name, active, enabled) = (name.to_owned(), active.to_owned(), enabled.to_owned());
    on("one", Fact::Unit(UnitFact { name, active, enabled }))
}

/// A process with its state, and what it waits in.
pub(crate) fn process(command: &str, state: char, waits_in: &str) -> Item {
    let command = command.split(' ').map(str::to_owned).collect();
    on("one", Fact::Process(ProcessFact { pid: 7, command, state, waits_in: waits_in.to_owned() }))
}

/// A configuration file.
pub(crate) fn document(name: &str, content: Value) -> Item {
    let (name, path) = (name.to_owned(), format!("/etc/{name}"));
    on("one", Fact::Document { name, path, content: Ok(content) })
}

/// A line of a container of the control plane.
pub(crate) fn container_logged(container: &str, text: &str) -> Item {
    let source = LogSource::Container {
        namespace: "kube-system".to_owned(),
        pod: format!("{container}-one"),
        container: container.to_owned(),
        previous: false,
    };
    on("one", Fact::Log(LogFact { source, text: text.to_owned() }))
}

/// A line of the kernel.
pub(crate) fn kernel_logged(text: &str) -> Item {
    on("one", Fact::Log(LogFact { source: LogSource::Kernel, text: text.to_owned() }))
}

pub(crate) fn measured(name: &str, of: &str, value: f64, limit: Option<f64>) -> Item {
    on("one", Fact::Measure(MeasureFact { name: name.to_owned(), of: of.to_owned(), value, limit }))
}

/// The same item, seen so many seconds ago.
pub(crate) fn ago(mut item: Item, seconds: i64) -> Item {
    item.time = Timestamp::from_second(now().as_second() - seconds).ok();
    item
}

/// A line as one of these writes it: a component of the control plane, a unit, a person's command, the kernel.
pub(crate) fn line_of(program: &str, text: &str) -> Item {
    match program {
        "kernel" => kernel_logged(text),
        "kubeadm" | "kubectl" | "etcdctl" => {
            on("one", Fact::Log(LogFact { source: LogSource::Command(program.to_owned()), text: text.to_owned() }))
        }
        "kubelet" | "containerd" | "kedge" => logged(program, text),
        _ => container_logged(program, text),
    }
}

/// Holds a rule to lines: each of `said` is found when it is new and not when it is old; none of `silent` is.
pub(crate) fn check_lines(rule: &Rule, said: &[(&str, &str)], silent: &[(&str, &str)]) {
    for (program, text) in said {
        let line = line_of(program, text);
        assert_eq!(found_among(rule, [ago(line.clone(), 5)]).len(), 1, "{} misses {text}", rule.id);
        assert_eq!(found_among(rule, [line.clone()]).len(), 1, "{} misses {text} without a time", rule.id);
        assert_eq!(found_among(rule, [ago(line, 7200)]), [""; 0], "{} does not forget {text}", rule.id);
    }
    for (program, text) in silent {
        assert_eq!(found_among(rule, [ago(line_of(program, text), 5)]), [""; 0], "{} mistakes {text}", rule.id);
    }
}

/// A certificate as an address serves it, where the file at `path` should be.
pub(crate) fn serving(path: &str, address: &str, fingerprint: &str, from: i64, until: i64) -> Item {
    let mut item = certificate(path, from, until);
    if let Fact::Certificate(served) = &mut item.fact {
        served.fingerprint = fingerprint.to_owned();
        served.served_by = Some(address.to_owned());
    }
    item
}

/// A port of another machine that was called.
pub(crate) fn probe(to: &str, protocol: &str, port: u16, error: Option<&str>) -> Item {
    let (to, protocol, error) = (to.to_owned(), protocol.to_owned(), error.map(str::to_owned));
    on("one", Fact::Network(NetworkFact::Probe { to, protocol, port, error }))
}

/// An interface that is up.
pub(crate) fn interface(name: &str, mtu: u32, kind: &str, addresses: &[&str]) -> Item {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    let (name, kind) = (name.to_owned(), kind.to_owned());
    on("one", Fact::Network(NetworkFact::Interface { name, mtu, kind, up: true, addresses }))
}

pub(crate) fn route(to: &str, via: Option<&str>, interface: &str) -> Item {
    let (to, via, interface) = (to.to_owned(), via.map(str::to_owned), interface.to_owned());
    on("one", Fact::Network(NetworkFact::Route { to, via, interface }))
}
