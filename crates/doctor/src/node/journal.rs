//! The last lines of the services of a node: journald's, or those of log files where there is no journal.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kedge_bundle::take_apart;
use kedge_diagnosis::LogSource;
use serde_json::Value;

use crate::node::program;
use crate::node::reading::Reading;
use crate::node::tail::tail;

/// Lines of each service.
const LINES: &str = "800";
/// What is read of the end of a log file.
const TAIL: u64 = 256 << 10;
/// Services whose words matter; others of the machine are only looked at for whether they run.
pub(super) const PROGRAMS: &[&str] = &[
    "kubelet",
    "containerd",
    "crio",
    "docker",
    "cri-docker",
    "etcd",
    "k3s",
    "k3s-agent",
    "rke2-server",
    "rke2-agent",
    "kedge",
    "kube-apiserver",
    "kube-proxy",
];

/// Reads the journal of each of those units that are there.
pub(super) async fn read_units(units: &[String]) -> Reading {
    let mut reading = Reading::default();
    let wanted: Vec<&String> = units.iter().filter(|unit| PROGRAMS.contains(&unit.as_str())).collect();
    let tasks: Vec<_> = wanted.iter().map(|unit| tokio::spawn(of_unit((*unit).clone()))).collect();
    for task in tasks {
        match task.await {
            Ok(found) => reading.append(found),
            Err(error) => reading.miss("journal", error),
        }
    }
    reading
}

async fn of_unit(unit: String) -> Reading {
    let mut reading = Reading::default();
    let fields = "--output-fields=MESSAGE";
    let said =
        program::output("journalctl", &["-q", "--no-pager", "-u", &unit, "-n", LINES, "-o", "json", fields]).await;
    match said {
        Ok(said) => records(&said, LogSource::Unit(unit.clone()), &format!("journalctl -u {unit}"), &mut reading),
        Err(why) => reading.miss(format!("journal of {unit}"), why),
    }
    reading
}

/// Records of the journal, a line of JSON each.
pub(super) fn records(said: &[u8], source: LogSource, origin: &str, reading: &mut Reading) {
    for line in String::from_utf8_lossy(said).lines() {
        let Ok(record) = serde_json::from_str::<Value>(line) else { continue };
        let micros = record["__REALTIME_TIMESTAMP"].as_str().and_then(|text| text.parse::<i64>().ok());
        let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        if let Some(message) = message(&record["MESSAGE"]) {
            reading.line(time, origin, source.clone(), &message);
        }
    }
}

/// A message that is not text is a list of its bytes.
fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

/// Reads the ends of log files: Kedge's own, and those of machines without a journal.
pub(super) fn read_files(data_dir: &Path, now: Timestamp) -> Reading {
    let mut reading = Reading::default();
    let files = [
        ("kubelet", PathBuf::from("/var/log/kedge-kubelet.log")),
        ("kubelet", PathBuf::from("/var/log/kubelet.log")),
        ("containerd", PathBuf::from("/var/log/containerd.log")),
        ("containerd", data_dir.join("containerd/containerd.log")),
        ("kedge", data_dir.join("kedge.log")),
        // Of a test host of `kedge cluster`.
        ("kedge", PathBuf::from("/run/kedge/node/kedge.log")),
        ("etcd", PathBuf::from("/var/log/etcd.log")),
    ];
    for (program, path) in files {
        file(&path, Some(program), now, &mut reading);
    }
    if !Path::new("/run/systemd/system").is_dir() {
        for path in ["/var/log/syslog", "/var/log/messages"] {
            file(Path::new(path), None, now, &mut reading);
        }
    }
    reading
}

/// The end of a file; where it is nobody's own, its lines say whose they are.
fn file(path: &Path, owner: Option<&str>, now: Timestamp, reading: &mut Reading) {
    let text = match tail(path, TAIL) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return reading.miss(path.display().to_string(), error),
    };
    let origin = format!("tail {}", path.display());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let line = take_apart(line, now);
        match owner.or(line.program.filter(|program| PROGRAMS.contains(program))) {
            Some(program) => reading.line(line.time, &origin, LogSource::Unit(program.to_owned()), line.text),
            None if line.program == Some("kernel") => reading.line(line.time, &origin, LogSource::Kernel, line.text),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::Fact;

    fn texts(reading: &Reading) -> Vec<(Option<i64>, String)> {
        let text = |(time, fact): (Option<Timestamp>, &Fact)| match fact {
            Fact::Log(line) => (time.map(Timestamp::as_second), format!("{:?} {}", line.source, line.text)),
            fact => (None, fact.to_string()),
        };
        reading.facts().map(text).collect()
    }

    #[test]
    fn records_are_read_with_their_time() {
        let said = b"{\"__REALTIME_TIMESTAMP\":\"1700000000000000\",\"MESSAGE\":\"failed\"}\nno record\n{\"MESSAGE\":[104,105]}\n";
        let mut reading = Reading::default();
        records(said, LogSource::Kernel, "journalctl -k", &mut reading);
        assert_eq!(
            texts(&reading),
            [(Some(1_700_000_000), "Kernel failed".to_owned()), (None, "Kernel hi".to_owned())]
        );
    }

    #[test]
    fn files_are_read_from_their_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubelet.log");
        let line = "2026-11-21T10:00:00Z  WARN kedge_kubelet: the API server does not answer\n";
        std::fs::write(&path, line.repeat(10_000)).expect("it is written");
        let mut reading = Reading::default();
        let now = "2026-11-21T11:00:00Z".parse().expect("a time");
        file(&path, Some("kubelet"), now, &mut reading);
        let read = texts(&reading);
        assert!(read.len() > 1000 && read.len() < 10_000, "{}", read.len());
        let ten = "2026-11-21T10:00:00Z".parse::<Timestamp>().expect("a time").as_second();
        assert!(
            read.iter().all(|(time, text)| *time == Some(ten) && text.contains("does not answer")),
            "{:?}",
            read[0]
        );
        file(&directory.path().join("none.log"), Some("kubelet"), now, &mut reading);
        assert_eq!(reading.missed(), [""; 0]);
    }
}
