//! The last environment of each container, kept with its pod, so that it can be restarted while the API server is away.
//!
//! Invariant: readable by root only, and gone with the pod. The runtime keeps the same values in its own state.
// DIVERGES: upstream cannot restart a container whose environment needs a ConfigMap, Secret or Service while the API server
// is away and the kubelet was restarted.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::config::Config;
use crate::spec;

/// Where a container's environment is kept.
pub(crate) fn path(config: &Config, pod: &Pod, container: &str) -> PathBuf {
    config.container_dir(spec::uid(pod), container).join("environment.json")
}

/// Writes the environment where it changed.
pub(crate) fn save(path: &Path, environment: &[(String, String)]) -> io::Result<()> {
    let text = serde_json::to_vec(environment)?;
    if std::fs::read(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    std::fs::rename(temporary, path)
}

/// Reads it; `None` where there is none.
pub(crate) fn load(path: &Path) -> Option<Vec<(String, String)>> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_environment_survives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c/environment.json");
        assert_eq!(load(&path), None);
        let environment = vec![("A".to_owned(), "1".to_owned())];
        save(&path, &environment).unwrap();
        assert_eq!(load(&path), Some(environment));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
