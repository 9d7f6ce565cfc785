//! The last known state of the API's pods, on disk, for a kubelet that starts while the API server is away.
//!
//! Invariant: a file that cannot be read costs its pod a restart of the kubelet at most, never the pod itself.
// DIVERGES: upstream's kubelet knows no API pods until the API server answers; their containers run on but are not
// restarted.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::spec;

/// Keeps pods in one directory, one file each.
pub(crate) struct Checkpoints {
    directory: PathBuf,
}

impl Checkpoints {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes a pod; where that fails, the log says so.
    pub(crate) fn save(&self, pod: &Pod) {
        if let Err(error) = self.try_save(pod) {
            tracing::warn!(pod = spec::format_pod(pod), %error, "failed to keep a pod for times without an API server");
        }
    }

    fn try_save(&self, pod: &Pod) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let path = self.path(spec::uid(pod));
        let temporary = path.with_extension("tmp");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(pod)?)?;
        std::fs::rename(temporary, path)
    }

    pub(crate) fn remove(&self, uid: &str) {
        match std::fs::remove_file(self.path(uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(uid, %error, "failed to forget a pod that is gone");
            }
            _ => {}
        }
    }

    /// All pods that were kept.
    pub(crate) fn load(&self) -> Vec<Pod> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| read(&entry.path())).collect()
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.directory.join(format!("{uid}.json"))
    }
}

fn read(path: &Path) -> Option<Pod> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return None;
    }
    let parsed = std::fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    parsed.inspect_err(|error| tracing::warn!(path = %path.display(), error, "a kept pod cannot be read")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_survive_and_broken_files_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(directory.path().join("c"));
        assert!(checkpoints.load().is_empty());
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".to_owned());
        pod.metadata.name = Some("web".to_owned());
        checkpoints.save(&pod);
        std::fs::write(directory.path().join("c/broken.json"), "{").unwrap();
        assert_eq!(checkpoints.load(), [pod]);
        checkpoints.remove("u");
        checkpoints.remove("u");
        assert!(checkpoints.load().is_empty());
    }
}
