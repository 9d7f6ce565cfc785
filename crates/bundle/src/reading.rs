//! A whole bundle as evidence: each file by what it holds, then what only the whole can tell.
//!
//! Invariant: a bundle of any size costs bounded memory, and what was passed over for it is in `unseen`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use kedge_diagnosis::{Evidence, Fact, Item, LogSource, ManifestFact, Place, Unseen};
use serde_json::Value;

use crate::certificates::certificate_fact;
use crate::commands::read_command;
use crate::layout::{Hint, hint};
use crate::logs::{Budget, read_log};
use crate::objects::read_objects;
use crate::own::{Part, read_part};
use crate::reduce::Reducer;
use crate::sources::each_file;
use crate::text::{latest_time, read_pasted};

/// The machine's name where no file says it.
const NAMELESS: &str = "the machine of the bundle";
/// A text of unknown content that is longer than this, and does not begin like a document, is a log.
const LONG: u64 = 4 << 20;

/// How much of a bundle is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items of evidence.
    pub items: usize,
    /// Bytes of one file that is read whole: objects, tables, configurations.
    pub file_bytes: u64,
}

impl Default for Limits {
    /// 600,000 items, 256 MiB.
    fn default() -> Self {
        Self { items: 600_000, file_bytes: 256 << 20 }
    }
}

/// Reads a bundle: a directory, an archive (packed or not), or one file. `now` bounds times that the files leave open.
///
/// # Errors
/// Where the file or the directory itself cannot be read; a broken file within is in `unseen`.
pub fn read_bundle(path: &Path, now: Timestamp, limits: Limits) -> io::Result<Evidence> {
    let mut reader = Reader { now, limits, reducer: Reducer::unordered(), ..Reader::default() };
    let ended = each_file(path, &mut |name, content| reader.file(name, content));
    if let Err(error) = ended {
        // An archive that was cut off: what came before counts.
        if reader.items.is_empty() {
            return Err(error);
        }
        reader.pass_over("the rest of the bundle", error);
    }
    Ok(reader.finish())
}

/// Reads what was pasted.
pub fn read_text(text: &str, now: Timestamp) -> Evidence {
    let gathered = latest_time(text, now).unwrap_or(now);
    let objects = read_objects(text, "standard input", &mut Reducer::unordered());
    let items = objects.unwrap_or_else(|| read_pasted(text, &Place::Cluster, "standard input", gathered));
    Evidence { gathered, items: items.into(), unseen: vec![only(text)] }
}

fn only(text: &str) -> Unseen {
    let why = format!("only the {} lines that were given were looked at", text.lines().count());
    Unseen { what: "everything else".to_owned(), why }
}

#[derive(Default)]
struct Reader {
    items: Vec<Item>,
    unseen: Vec<Unseen>,
    now: Timestamp,
    limits: Limits,
    host: Option<String>,
    gathered: Option<Timestamp>,
    reducer: Reducer,
    budget: Budget,
    passed_over: usize,
    /// Items of an own bundle for which there was no room.
    left_out: usize,
}

impl Reader {
    fn file(&mut self, name: &str, content: &mut dyn BufRead) {
        if self.items.len() >= self.limits.items {
            self.passed_over += 1;
            return;
        }
        match self.own(name, content) {
            Some(Ok(Part::Head(head))) => {
                self.gathered = Some(head.gathered);
                self.unseen.extend(head.unseen);
                return;
            }
            Some(Ok(Part::Evidence)) => return,
            Some(Err(why)) => return self.pass_over(name, why),
            None => {}
        }
        match hint(name) {
            Hint::Log(source) => self.log(name, content, &source),
            Hint::Unknown => self.unknown(name, content),
            other => {
                if let Some(text) = self.whole(name, content) {
                    self.text(name, other, &text);
                }
            }
        }
    }

    /// A file of an own bundle, whose lines share the budget of all logs.
    fn own(&mut self, name: &str, content: &mut dyn BufRead) -> Option<Result<Part, String>> {
        let Self { items, limits, budget, left_out, .. } = self;
        read_part(name, content, &mut |item| {
            let is_kept = match &item.fact {
                Fact::Log(line) => budget.admits(&line.text),
                _ => true,
            };
            if is_kept && items.len() < limits.items {
                items.push(item);
            } else {
                *left_out += 1;
            }
            true
        })
    }

    fn log(&mut self, name: &str, content: &mut dyn BufRead, source: &LogSource) {
        let bounds = self.budget.bounds(source);
        let items = read_log(content, source, &Place::Node(NAMELESS.to_owned()), name, self.now, bounds);
        self.budget.spend(items.len());
        self.items.extend(items);
    }

    /// A file whose name says nothing: a long one that does not begin like a document is read as a log, line by line.
    fn unknown(&mut self, name: &str, content: &mut dyn BufRead) {
        let mut start = Vec::new();
        if let Err(error) = content.take(LONG).read_to_end(&mut start) {
            return self.pass_over(name, error);
        }
        let is_long = start.len() as u64 == LONG;
        let mut rest = BufReader::new((&start[..]).chain(content));
        if !is_long || begins_like_a_document(&start) {
            if let Some(text) = self.whole(name, &mut rest) {
                self.text(name, Hint::Unknown, &text);
            }
        } else if is_text(&start) {
            let stem = name.rsplit('/').next().unwrap_or(name).split('.').next().unwrap_or_default();
            self.log(name, &mut rest, &LogSource::Unit(stem.to_owned()));
        }
    }

    /// A file whole, if it is a text of a reasonable size.
    fn whole(&mut self, name: &str, content: &mut dyn BufRead) -> Option<String> {
        let mut bytes = Vec::new();
        let read = content.take(self.limits.file_bytes + 1).read_to_end(&mut bytes);
        if let Err(error) = read {
            self.pass_over(name, error);
            return None;
        }
        if bytes.len() as u64 > self.limits.file_bytes {
            self.pass_over(name, format!("it is larger than {} MiB", self.limits.file_bytes >> 20));
            return None;
        }
        is_text(&bytes).then(|| match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    fn text(&mut self, name: &str, hint: Hint, text: &str) {
        let place = Place::Node(NAMELESS.to_owned());
        let item = |fact| Item { time: None, place: place.clone(), origin: name.to_owned(), fact };
        match hint {
            Hint::HostName => self.host = text.split_whitespace().next().map(str::to_owned),
            Hint::Manifest(path) => {
                let pod = serde_yaml::from_str::<Value>(text).map_err(|error| error.to_string());
                let pod =
                    pod.and_then(|pod| if pod["kind"] == "Pod" { Ok(pod) } else { Err("it is no Pod".to_owned()) });
                self.items.push(item(Fact::Manifest(ManifestFact { path, pod })));
            }
            Hint::Certificate(path) => match certificate_fact(text, &path) {
                Ok(fact) => self.items.push(item(fact)),
                Err(why) => self.pass_over(name, why),
            },
            Hint::Document(kind, path) => {
                let content = document(kind, text);
                self.items.push(item(Fact::Document { name: kind.to_owned(), path, content }));
            }
            Hint::Command(command) => self.items.extend(read_command(command, text).into_iter().map(item)),
            Hint::Log(_) | Hint::Unknown => {
                let items = read_objects(text, name, &mut self.reducer).unwrap_or_else(|| {
                    let near = latest_time(text, self.now).unwrap_or(self.now);
                    read_pasted(text, &place, name, near)
                });
                self.items.extend(items);
            }
        }
    }

    fn pass_over(&mut self, what: &str, why: impl ToString) {
        self.unseen.push(Unseen { what: what.to_owned(), why: why.to_string() });
    }

    /// What only the whole tells: the machine's name, the nodes of logs, when it was gathered.
    fn finish(mut self) -> Evidence {
        if self.passed_over > 0 {
            let why = format!("the bundle has more than {} items", self.limits.items);
            self.pass_over(&format!("{} files", self.passed_over), why);
        }
        if self.left_out > 0 {
            let why = "the bundle has more lines of logs than are looked at at once".to_owned();
            self.pass_over(&format!("{} items of evidence", self.left_out), why);
        }
        if self.budget.shortened > 0 {
            let why = "there are so many logs that only the last lines of these were looked at".to_owned();
            self.pass_over(&format!("older lines of {} logs", self.budget.shortened), why);
        }
        let well = std::mem::take(&mut self.reducer).well().map(|well| {
            let origin = "objects of the bundle".to_owned();
            Item { time: None, place: Place::Cluster, origin, fact: Fact::Well(well) }
        });
        self.items.extend(well);
        let host = self.host.take().unwrap_or_else(|| NAMELESS.to_owned());
        let nodes = nodes_by_pod(&self.items);
        let nameless = Place::Node(NAMELESS.to_owned());
        for item in &mut self.items {
            if item.place != nameless {
                continue;
            }
            let node = match &item.fact {
                Fact::Log(line) => match &line.source {
                    LogSource::Container { namespace, pod, .. } => nodes.get(&(namespace.clone(), pod.clone())),
                    _ => None,
                },
                _ => None,
            };
            item.place = Place::Node(node.unwrap_or(&host).clone());
        }
        let latest = self.items.iter().filter_map(|item| item.time).filter(|time| *time <= self.now).max();
        let gathered = self.gathered.or(latest).unwrap_or(self.now);
        Evidence { gathered, items: self.items.into(), unseen: self.unseen }
    }
}

/// Whether it is no binary, no picture and no archive within an archive.
fn is_text(bytes: &[u8]) -> bool {
    memchr::memchr(0, &bytes[..bytes.len().min(1024)]).is_none()
}

/// Whether a text may be objects in JSON or YAML.
fn begins_like_a_document(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 6] = [b"{", b"[", b"---", b"apiVersion:", b"kind:", b"items:"];
    let bytes = bytes.trim_ascii_start();
    // Some logs have an object in every line, and a bracket around a time.
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_line_of_log = bytes.len() > first.len() && (first.ends_with(b"}") || first.starts_with(b"[ "));
    !is_line_of_log && starts.iter().any(|start| bytes.starts_with(start))
}

/// A configuration: structured where its form is YAML, as text elsewhere.
fn document(kind: &str, text: &str) -> Result<Value, String> {
    match kind {
        "kubelet" => serde_yaml::from_str(text).map_err(|error| error.to_string()),
        _ => Ok(Value::from(text)),
    }
}

fn nodes_by_pod(items: &[Item]) -> BTreeMap<(String, String), String> {
    let node = |item: &Item| {
        let Fact::Object(pod) = &item.fact else { return None };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = (text(&pod["metadata"]["namespace"])?, text(&pod["metadata"]["name"])?);
        (pod["kind"] == "Pod").then(|| Some((name, text(&pod["spec"]["nodeName"])?)))?
    };
    items.iter().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own::write_bundle;
    use kedge_diagnosis::diagnose;

    fn now() -> Timestamp {
        "2026-07-22T12:00:00Z".parse().expect("a time")
    }

    fn causes(evidence: &Evidence) -> Vec<&'static str> {
        diagnose(evidence).causes.iter().map(|cause| cause.id).collect()
    }

    const PODS: &str =
        "NAME   READY   STATUS             RESTARTS   AGE\nweb    0/1     CrashLoopBackOff   9          50m\n";

    #[test]
    fn a_table_is_enough_for_a_diagnosis() {
        assert_eq!(
            causes(&read_text(&PODS.replace("0/1     CrashLoopBackOff", "1/1     Running         "), now())),
            [""; 0]
        );
        assert_eq!(causes(&read_text(PODS, now())).len(), 1);
    }

    #[test]
    fn a_tree_of_several_kinds_of_file_is_one_evidence() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        };
        write("hostname", "one\n");
        write("sos_commands/kernel/sysctl_-a", "net.ipv4.ip_forward = 0\n");
        write("etc/kubernetes/manifests/etcd.yaml", "kind: [");
        write(
            "pods.json",
            r#"{"items": [{"metadata": {"namespace": "a", "name": "web"}, "spec": {"nodeName": "two"}}]}"#,
        );
        write("var/log/pods/a_web_1/app/0.log", "2026-07-22T10:00:00Z stderr F failed\n");
        write("picture.png", "\u{0}\u{0}\u{0}");
        let evidence = read_bundle(directory.path(), now(), Limits::default()).expect("it is read");
        let mut found = causes(&evidence);
        found.sort_unstable();
        assert_eq!(found, ["A12", "D1"]);
        let place = |wanted: &str| {
            evidence.items.iter().find(|item| item.fact.to_string().contains(wanted)).map(|item| &item.place)
        };
        assert_eq!(place("ip_forward"), Some(&Place::Node("one".to_owned())));
        assert_eq!(place("failed"), Some(&Place::Node("two".to_owned())));
        assert_eq!(evidence.gathered, "2026-07-22T10:00:00Z".parse().expect("a time"));
    }

    #[test]
    fn an_own_bundle_comes_back_without_secrets() {
        let evidence = read_text(&format!("{PODS}\npassword=hunter2\nsome line\n"), now());
        let count = evidence.items.len();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bundle.tar.gz");
        write_bundle(evidence.clone(), 1 << 20, std::fs::File::create(&path).expect("it is made"))
            .expect("it is written");
        let read = read_bundle(&path, now(), Limits::default()).expect("it is read");
        assert_eq!((read.items.len(), read.gathered), (count, now()));
        assert!(!format!("{:?}", read.items).contains("hunter2"));
        assert_eq!(causes(&read), causes(&evidence));

        // A bound of no bytes at all leaves the word on what is missing.
        write_bundle(evidence, 0, std::fs::File::create(&path).expect("it is made")).expect("it is written");
        let read = read_bundle(&path, now(), Limits::default()).expect("it is read");
        assert!(read.items.is_empty() && read.unseen.iter().any(|unseen| unseen.what.contains("logs")), "{read:?}");
    }

    #[test]
    fn a_long_text_of_no_known_name_is_a_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = "Jul 22 10:00:00 one kubelet[12]: all is well\n";
        let text = line.repeat(2 * LONG as usize / line.len()) + "Jul 22 10:00:01 one kubelet[12]: it failed\n";
        std::fs::write(directory.path().join("messages"), text).expect("it is written");
        let evidence = read_bundle(directory.path(), now(), Limits::default()).expect("it is read");
        assert!(evidence.items.len() < 1000, "{}", evidence.items.len());
        let last = evidence.items.last().expect("there are lines");
        assert!(
            matches!(&last.fact, Fact::Log(line) if line.source.is("kubelet") && line.text == "it failed"),
            "{last:?}"
        );
        for (text, expected) in [
            ("{\n  \"items\"", true),
            ("{\"items\":[]}", true),
            ("apiVersion: v1\n", true),
            ("{\"ts\":1}\n{\"ts\":2}\n", false),
            ("[    1.0] x\n", false),
            ("Jul 22 x\n", false),
        ] {
            assert_eq!(begins_like_a_document(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_bundle_says_so() {
        assert!(read_bundle(Path::new("/none"), now(), Limits::default()).is_err());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cut.tar.gz");
        std::fs::write(&path, [0x1f, 0x8b, 0, 0]).expect("it is written");
        assert!(read_bundle(&path, now(), Limits::default()).is_err());
    }
}
