//! The directory of static pods: read at start, on every change (inotify) and from time to time.
//!
//! Invariant: a broken file never touches the pods of the others; its own former pod ends, as upstream has it, only when
//! the file is gone or names another pod.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::manifest::{self, FileKind};

/// Upstream's `fileCheckFrequency`.
const RESCAN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(50);
const MAX_FILE: u64 = 1024 * 1024;

/// What one reading of the directory found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By file.
    pub(crate) pods: BTreeMap<PathBuf, Arc<Pod>>,
    /// What is wrong with files that could not be read, where that was not said before.
    pub(crate) problems: Vec<(PathBuf, String)>,
}

/// Reads the directory, and remembers what it has said and seen.
pub(crate) struct StaticPods {
    directory: PathBuf,
    node_name: String,
    said: HashMap<PathBuf, String>,
    known: BTreeMap<PathBuf, Arc<Pod>>,
}

impl StaticPods {
    pub(crate) fn new(directory: PathBuf, node_name: &str) -> Self {
        Self { directory, node_name: node_name.to_owned(), said: HashMap::new(), known: BTreeMap::new() }
    }

    /// Reads every manifest. An unreadable directory keeps the pods that are known.
    pub(crate) fn scan(&mut self, now: Timestamp) -> Scan {
        let mut scan = Scan::default();
        let mut problems = HashMap::new();
        let files = match list(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                problems.insert(self.directory.clone(), error.to_string());
                scan.pods = self.known.clone();
                Vec::new()
            }
        };
        for path in files {
            match manifest::file_kind(&path) {
                FileKind::Hidden => {}
                FileKind::Leftover => {
                    problems.insert(path, "ignored: it looks like an editor's temporary or backup file".to_owned());
                }
                FileKind::Manifest => match self.read(&path, now) {
                    Ok(pod) => drop(scan.pods.insert(path, pod)),
                    Err(problem) => {
                        // A file that is being edited keeps its pod.
                        if let Some(known) = self.known.get(&path) {
                            scan.pods.insert(path.clone(), known.clone());
                        }
                        problems.insert(path, problem);
                    }
                },
            }
        }
        let news = problems.iter().filter(|(path, problem)| self.said.get(*path) != Some(problem));
        scan.problems = news.map(|(path, problem)| (path.clone(), problem.clone())).collect();
        self.said = problems;
        self.known.clone_from(&scan.pods);
        scan
    }

    fn read(&self, path: &Path, now: Timestamp) -> Result<Arc<Pod>, String> {
        let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if metadata.len() > MAX_FILE {
            return Err(format!("larger than {MAX_FILE} bytes"));
        }
        let content = std::fs::read(path).map_err(|error| error.to_string())?;
        let pod = manifest::parse(path, &content, &self.node_name, now)?;
        // The time of the first sight stays.
        match self.known.get(path).filter(|known| known.metadata.uid == pod.metadata.uid) {
            Some(known) => Ok(known.clone()),
            None => Ok(Arc::new(pod)),
        }
    }
}

/// Files of the directory, sorted; directories in it are not entered.
fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Waits for changes of a directory.
pub(crate) struct DirectoryWatch {
    inotify: Option<Inotify>,
}

impl DirectoryWatch {
    /// Where inotify is not to be had, the rescan has to do.
    pub(crate) fn new(directory: &Path) -> Self {
        let inotify = watch(directory).inspect_err(|error| {
            tracing::warn!(directory = %directory.display(), %error, "static pods are only rescanned from time to time");
        });
        Self { inotify: inotify.ok() }
    }

    /// Returns after a change, or when it is time for a rescan.
    pub(crate) async fn changed(&mut self) {
        let rescan = tokio::time::Instant::now() + RESCAN;
        while tokio::time::Instant::now() < rescan {
            // A look at the queue costs one system call; a thread or a registration would cost more.
            tokio::time::sleep(LOOK_EVERY).await;
            if self.drain() {
                // Editors write in several steps.
                tokio::time::sleep(SETTLE).await;
                self.drain();
                return;
            }
        }
    }

    /// Which file it was does not matter: all are read.
    fn drain(&self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut any = false;
        while inotify.read_events().is_ok_and(|events| !events.is_empty()) {
            any = true;
        }
        any
    }
}

fn watch(directory: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB;
    inotify.add_watch(directory, flags)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
        )
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.pods.values().map(|pod| crate::spec::name(pod)).collect()
    }

    #[test]
    fn a_broken_file_is_named_once_and_the_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        put("a.yaml", &manifest("a"));
        put("b.yaml", "kind: [");
        put("a.yaml~", &manifest("a"));
        put(".hidden", "x");
        let mut pods = StaticPods::new(directory.path().to_owned(), "n");
        let scan = pods.scan(Timestamp::UNIX_EPOCH);
        assert_eq!(names(&scan), ["a-n"]);
        let mut named: Vec<_> = scan.problems.iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
        named.sort();
        assert_eq!(named, ["a.yaml~", "b.yaml"]);
        assert!(pods.scan(Timestamp::UNIX_EPOCH).problems.is_empty(), "said before");
        put("a.yaml", "kind: [");
        assert_eq!(names(&pods.scan(Timestamp::UNIX_EPOCH)), ["a-n"], "a broken edit keeps the pod");
        std::fs::remove_file(directory.path().join("a.yaml")).unwrap();
        assert!(names(&pods.scan(Timestamp::UNIX_EPOCH)).is_empty());
    }

    #[test]
    fn an_unchanged_file_keeps_its_pod() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.yaml"), manifest("a")).unwrap();
        let mut pods = StaticPods::new(directory.path().to_owned(), "n");
        let first = pods.scan(Timestamp::UNIX_EPOCH).pods;
        let second = pods.scan(Timestamp::UNIX_EPOCH + Duration::from_secs(5)).pods;
        assert_eq!(first, second);
    }
}
