//! What people paste: tables, descriptions, documents and lines of logs, in any order, with or without the commands.
//!
//! Pure. A line that belongs to nothing else is a line of a log, of the program that it names, or of the command before it.

use jiff::Timestamp;
use kedge_diagnosis::{Fact, Item, LogFact, LogSource, Place};
use serde_json::{Value, json};

use crate::describe::EVENTS;
use crate::moments::take_apart;
use crate::objects::read_objects;
use crate::reduce::Reducer;
use crate::tables::{Table, kind_of};
use crate::{describe, tables};

/// The evidence in a text. `near` is a time close to when it was written, `place` where its machine's lines belong.
pub(crate) fn read_pasted(text: &str, place: &Place, origin: &str, near: Timestamp) -> Vec<Item> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut reader = Reader { place, origin, near, source: None, described: None, items: Vec::new() };
    let mut at = 0;
    while at < lines.len() {
        at += reader.block(&lines[at..]);
    }
    reader.items
}

/// The latest whole time that a text names, no later than `now`.
pub(crate) fn latest_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    text.lines().filter_map(|line| take_apart(line, now).time).filter(|time| *time <= now).max()
}

struct Reader<'a> {
    place: &'a Place,
    origin: &'a str,
    near: Timestamp,
    /// Whose lines follow, as the command before them says.
    source: Option<LogSource>,
    /// Whose description follows.
    described: Option<Value>,
    items: Vec<Item>,
}

impl Reader<'_> {
    /// Reads what begins here, and returns how many lines it has.
    fn block(&mut self, lines: &[&str]) -> usize {
        let first = lines[0];
        if let Some(command) = command(first) {
            self.source = source_of(command);
            self.described = described(command);
            return 1;
        }
        if let Some(source) = dumped(first) {
            self.source = source;
            return 1;
        }
        if tables::is_header(first) {
            let (table, count) = Table::read(lines);
            self.items.extend(table.objects(self.origin, self.near));
            return count;
        }
        if describe::is_start(first) {
            let count = until(lines, |line| describe::is_start(line) || command(line).is_some());
            self.items.extend(describe::read_description(&lines[..count], self.origin, self.near));
            return count;
        }
        if let (EVENTS, Some(about)) = (first, &self.described) {
            let count = until(lines, |line| line.is_empty() || command(line).is_some());
            self.items.extend(describe::read_events(&lines[1..count], about, self.origin, self.near));
            return count;
        }
        if first.starts_with("apiVersion:") || first == "{" || first == "---" {
            let count = until(lines, |line| command(line).is_some());
            if let Some(found) = read_objects(&lines[..count].join("\n"), self.origin, &mut Reducer::unordered()) {
                self.items.extend(found);
                return count;
            }
        }
        self.line(first);
        1
    }

    fn line(&mut self, line: &str) {
        let taken = take_apart(line, self.near);
        if taken.text.trim().is_empty() {
            return;
        }
        let source = match taken.program {
            Some("kernel") => LogSource::Kernel,
            Some(program) => LogSource::Unit(program.to_owned()),
            None => self.source.clone().unwrap_or_else(|| source_by_content(taken.text)),
        };
        let fact = Fact::Log(LogFact { source, text: taken.text.to_owned() });
        self.items.push(Item { time: taken.time, place: self.place.clone(), origin: self.origin.to_owned(), fact });
    }
}

fn until(lines: &[&str], is_end: impl Fn(&str) -> bool) -> usize {
    lines.iter().skip(1).position(|line| is_end(line)).map_or(lines.len(), |count| count + 1)
}

/// The command of a line with a prompt: `$ kubectl get pods`, `root@one:~# journalctl -u kubelet`.
fn command(line: &str) -> Option<&str> {
    const PROGRAMS: [&str; 8] =
        ["kubectl ", "kubeadm ", "kedge ", "journalctl ", "crictl ", "sudo ", "systemctl ", "dmesg"];
    let rest = line.split_once("$ ").or_else(|| line.split_once("# ")).map_or(line, |(_, rest)| rest);
    let has_prompt = rest.len() < line.len() && line.len() - rest.len() < 80;
    let is_bare = !line.starts_with(' ') && !line.contains(": ");
    ((has_prompt || is_bare) && PROGRAMS.iter().any(|program| rest.starts_with(program))).then_some(rest)
}

/// Whose lines a command prints.
fn source_of(command: &str) -> Option<LogSource> {
    let words: Vec<&str> = command.trim_start_matches("sudo ").split_whitespace().collect();
    let after = |names: &[&str]| words.iter().position(|word| names.contains(word)).and_then(|at| words.get(at + 1));
    match words[..] {
        ["dmesg", ..] => Some(LogSource::Kernel),
        ["journalctl", ..] => after(&["-u", "--unit"]).map(|unit| LogSource::Unit((*unit).to_owned())),
        ["kubectl", ..] if words.contains(&"logs") => {
            let namespace = after(&["-n", "--namespace"]).unwrap_or(&"default");
            let is_value = |at: usize| matches!(words[at - 1], "-n" | "--namespace" | "-c" | "--container");
            let from = words.iter().position(|word| *word == "logs")? + 1;
            let pod =
                (from..words.len()).find(|&at| !words[at].starts_with('-') && !is_value(at)).map(|at| words[at])?;
            let container = after(&["-c", "--container"]).copied().unwrap_or_else(|| component_of(pod));
            let previous = words.iter().any(|word| *word == "-p" || word.starts_with("--previous"));
            Some(container_source(namespace, pod, container, previous))
        }
        [program, ..] => Some(LogSource::Command(program.to_owned())),
        [] => None,
    }
}

/// The object that `kubectl describe` was asked about.
fn described(command: &str) -> Option<Value> {
    let words: Vec<&str> = command.trim_start_matches("sudo ").split_whitespace().collect();
    let start = words.iter().position(|word| *word == "describe")? + 1;
    let namespace =
        words.iter().position(|word| matches!(*word, "-n" | "--namespace")).and_then(|at| words.get(at + 1));
    let is_value = |at: usize| matches!(words[at - 1], "-n" | "--namespace");
    let mut rest = (start..words.len()).filter(|&at| !words[at].starts_with('-') && !is_value(at)).map(|at| words[at]);
    let first = rest.next()?;
    let (kind, name) = first.split_once('/').or_else(|| Some((first, rest.next()?)))?;
    let kind = kind_of(kind);
    let namespace = if kind == "Node" { "" } else { namespace.copied().unwrap_or("default") };
    Some(json!({"kind": kind, "namespace": namespace, "name": name}))
}

/// The line before or after a container's log in what `kubectl cluster-info dump` prints.
fn dumped(line: &str) -> Option<Option<LogSource>> {
    if line.starts_with("==== END logs for container ") {
        return Some(None);
    }
    let rest = line.strip_prefix("==== START logs for container ")?;
    let (container, pod) = rest.trim_end_matches(" ====").split_once(" of pod ")?;
    let (namespace, pod) = pod.split_once('/')?;
    Some(Some(container_source(namespace, pod, container, false)))
}

fn container_source(namespace: &str, pod: &str, container: &str, previous: bool) -> LogSource {
    LogSource::Container {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        previous,
    }
}

/// The container of a static pod of the control plane, by the pod's name.
pub(crate) fn component_of(pod: &str) -> &str {
    const COMPONENTS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];
    COMPONENTS.into_iter().find(|name| pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))).unwrap_or("")
}

/// Whose line it is, by marks that only one program makes.
fn source_by_content(text: &str) -> LogSource {
    const ETCD: [&str; 5] =
        ["etcdserver/", "\"caller\":\"rafthttp", "\"caller\":\"wal", "\"caller\":\"mvcc", "\"caller\":\"embed"];
    const KUBEADM: [&str; 6] =
        ["[preflight]", "[ERROR ", "[WARNING ", "error execution phase", "[kubelet-check]", "[init]"];
    const KUBECTL: [&str; 3] = ["The connection to the server", "Error from server", "Unable to connect to the server"];
    let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    match () {
        () if text.starts_with('{') && has(&ETCD) => LogSource::Unit("etcd".to_owned()),
        () if text.starts_with("time=\"") => LogSource::Unit("containerd".to_owned()),
        () if has(&KUBEADM) => LogSource::Command("kubeadm".to_owned()),
        () if has(&KUBECTL) => LogSource::Command("kubectl".to_owned()),
        () => LogSource::Command("pasted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let near = "2026-07-22T12:00:00Z".parse().expect("a time");
        let shown = |item: Item| match item.fact {
            Fact::Log(LogFact { source: LogSource::Container { pod, container, .. }, text }) => {
                format!("{pod}/{container}: {text}")
            }
            Fact::Log(LogFact { source: LogSource::Unit(name) | LogSource::Command(name), text }) => {
                format!("{name}: {text}")
            }
            fact => fact.to_string(),
        };
        read_pasted(text, &Place::Cluster, "pasted", near).into_iter().map(shown).collect()
    }

    #[test]
    fn what_is_pasted_in_one_piece_is_told_apart() {
        let text = "root@one:~# kubectl get nodes\n\
            NAME   STATUS     ROLES    AGE   VERSION\n\
            one    NotReady   <none>   5m    v1.36.0\n\
            \n\
            $ kubectl -n kube-system logs kube-scheduler-one --previous\n\
            E0722 10:00:00.0 1 leaderelection.go:1] \"leaderelection lost\"\n\
            $ sudo journalctl -u kubelet\n\
            Jul 22 10:00:00 one kubelet[12]: E0722 \"Failed to ensure lease exists\"\n\
            $ kubeadm join 10.0.0.1:6443\n\
            error execution phase preflight: [preflight] Some fatal errors occurred:\n";
        assert_eq!(
            read(text),
            [
                "Node one",
                "kube-scheduler-one/kube-scheduler: E0722 10:00:00.0 1 leaderelection.go:1] \"leaderelection lost\"",
                "kubelet: E0722 \"Failed to ensure lease exists\"",
                "kubeadm: error execution phase preflight: [preflight] Some fatal errors occurred:",
            ]
        );
    }

    #[test]
    fn events_alone_belong_to_what_was_described() {
        let text = "# kubectl describe po calico-node-1 -n kube-system\nEvents:\n\
            \u{20} Type     Reason     Age  From     Message\n  ----     ------     ---- ----     -------\n\
            \u{20} Warning  Unhealthy  16s  kubelet  Readiness probe failed:\nBGP not established with 10.0.0.1\n";
        let near = "2026-07-22T12:00:00Z".parse().expect("a time");
        let items = read_pasted(text, &Place::Cluster, "pasted", near);
        let [Item { fact: Fact::Object(event), .. }] = &items[..] else { panic!("{items:?}") };
        let about = json!({"kind": "Pod", "namespace": "kube-system", "name": "calico-node-1"});
        assert_eq!(event["involvedObject"], about);
        assert_eq!(event["message"], "Readiness probe failed: BGP not established with 10.0.0.1");
    }

    #[test]
    fn bare_lines_have_the_program_that_their_form_tells() {
        let check = |line: &str, program: &str| assert_eq!(read(line), [format!("{program}: {line}")]);
        check(
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
            "kubectl",
        );
        check("time=\"2026-07-22T10:00:00Z\" level=error msg=\"x\"", "containerd");
        check(
            "{\"level\":\"warn\",\"ts\":\"2026-07-22T10:00:00Z\",\"caller\":\"etcdserver/util.go:1\",\"msg\":\"x\"}",
            "etcd",
        );
        check("something else", "pasted");
    }

    #[test]
    fn a_dump_and_a_description_are_read() {
        let text = "{\"kind\": \"NodeList\", \"items\": []}\n\
            ==== START logs for container etcd of pod kube-system/etcd-one ====\nslow fdatasync\n\
            ==== END logs for container etcd of pod kube-system/etcd-one ====\n";
        assert_eq!(read(text).last().map(String::as_str), Some("etcd-one/etcd: slow fdatasync"));
        let text = "Name:  one\nRoles:  <none>\nTaints:  <none>\n\nsome line\nName:  two\nRoles:  x\nTaints:  <none>\n";
        assert_eq!(read(text), ["Node one", "Node two"]);
    }
}
