//! The last words of the cluster's own containers, of this run and of the one before, from the files that the runtime
//! writes: they are there without an API server, and without a runtime.
//!
//! Containers of people's own namespaces are not read.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use kedge_bundle::take_apart;
use kedge_diagnosis::LogSource;

use crate::node::reading::Reading;
use crate::node::tail::tail;

/// What is read of the end of a log.
const TAIL: u64 = 64 << 10;
/// Containers that are read; a node has fewer of the cluster's own.
const MOST: usize = 200;

/// A container of a pod: namespace, pod, container.
type Name = (String, String, String);

/// Reads the logs below a directory of the form `NAMESPACE_POD_UID/CONTAINER/RUN.log`.
pub(super) fn read(root: &Path, now: Timestamp) -> Reading {
    let mut reading = Reading::default();
    let pods = match std::fs::read_dir(root) {
        Ok(pods) => pods,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return reading,
        Err(error) => {
            reading.miss(root.display().to_string(), error);
            return reading;
        }
    };
    let mut runs: BTreeMap<Name, Vec<(SystemTime, u32, PathBuf)>> = BTreeMap::new();
    for pod in pods.flatten() {
        of_pod(&pod, &mut runs);
    }
    for (name, mut runs) in runs.into_iter().take(MOST) {
        runs.sort();
        let last = runs.len().saturating_sub(2);
        for (is_previous, (_, _, path)) in runs.drain(last..).rev().enumerate().map(|(at, run)| (at == 1, run)) {
            lines(&name, is_previous, &path, now, &mut reading);
        }
    }
    reading
}

fn of_pod(pod: &DirEntry, runs: &mut BTreeMap<Name, Vec<(SystemTime, u32, PathBuf)>>) {
    let name = pod.file_name().to_string_lossy().into_owned();
    let mut parts = name.splitn(3, '_');
    let (Some(namespace), Some(name), Some(_)) = (parts.next(), parts.next(), parts.next()) else { return };
    if !is_the_clusters(namespace) {
        return;
    }
    for container in std::fs::read_dir(pod.path()).into_iter().flatten().flatten() {
        let key = (namespace.to_owned(), name.to_owned(), container.file_name().to_string_lossy().into_owned());
        for file in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
            let run = file.file_name().to_string_lossy().strip_suffix(".log").and_then(|run| run.parse().ok());
            let written = file.metadata().and_then(|found| found.modified()).ok();
            if let (Some(run), Some(written)) = (run, written) {
                runs.entry(key.clone()).or_default().push((written, run, file.path()));
            }
        }
    }
}

/// Whether a namespace holds parts of the cluster.
pub(crate) fn is_the_clusters(namespace: &str) -> bool {
    let starts = ["kube-", "calico-", "tigera-", "kedge-", "cert-manager"];
    namespace.ends_with("-system") || starts.iter().any(|start| namespace.starts_with(start))
}

fn lines((namespace, pod, container): &Name, previous: bool, path: &Path, now: Timestamp, reading: &mut Reading) {
    let source =
        LogSource::Container { namespace: namespace.clone(), pod: pod.clone(), container: container.clone(), previous };
    match tail(path, TAIL) {
        Ok(text) => {
            let origin = format!("tail {}", path.display());
            for line in text.lines().filter(|line| !line.is_empty()) {
                let line = take_apart(line, now);
                reading.line(line.time, &origin, source.clone(), line.text);
            }
        }
        Err(error) => reading.miss(path.display().to_string(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::Fact;

    #[test]
    fn the_last_two_runs_of_the_clusters_containers_are_read() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        };
        for run in 0..3 {
            write(
                &format!("kube-system_etcd-one_uid/etcd/{run}.log"),
                &format!("2026-07-22T10:0{run}:00Z stderr F run {run}\n"),
            );
        }
        write("default_web_uid/c/0.log", "2026-07-22T10:00:00Z stdout F mine\n");
        write("kube-system_etcd-one_uid/etcd/2.log.gz", "x");
        let reading = read(root.path(), Timestamp::now());
        let mut found: Vec<(bool, String)> = reading
            .facts()
            .filter_map(|(time, fact)| match fact {
                Fact::Log(line) => match &line.source {
                    LogSource::Container { previous, .. } => time.map(|_| (*previous, line.text.clone())),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        found.sort();
        assert_eq!(found, [(false, "run 2".to_owned()), (true, "run 1".to_owned())]);
    }
}
