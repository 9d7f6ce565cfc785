//! The symbolic links under `/var/log/containers` by which log collectors find container logs, and the logs' end.
//!
//! Invariant: only links to logs of removed containers are removed.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::config::Config;
use crate::runtime_state::ContainerRecord;
use crate::spec;

/// Links a container's log.
pub(crate) fn make(config: &Config, pod: &Pod, container: &str, container_id: &str, log: &Path) {
    let Some(directory) = &config.container_logs_dir else { return };
    let link = directory.join(link_name(spec::name(pod), spec::namespace(pod), container, container_id));
    let made = std::fs::create_dir_all(directory).and_then(|()| std::os::unix::fs::symlink(log, &link));
    if let Err(error) = made {
        tracing::warn!(link = %link.display(), %error, "failed to link a container's log");
    }
}

/// Removes the log of a container, what was rotated of it, and its link.
pub(crate) fn remove(config: &Config, record: &ContainerRecord) {
    if record.log_path.is_empty() {
        return;
    }
    let log = PathBuf::from(&record.log_path);
    if let (Some(directory), Some(name)) = (log.parent(), log.file_name()) {
        let name = name.to_string_lossy().into_owned();
        let prefix = format!("{name}.");
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file == name || file.starts_with(&prefix) {
                remove_file(&entry.path());
            }
        }
    }
    let Some(directory) = &config.container_logs_dir else { return };
    let suffix = format!("{}-{}.log", record.name, record.id);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            remove_file(&entry.path());
        }
    }
}

/// Removes links whose log is gone.
pub(crate) fn remove_dangling(config: &Config) {
    let Some(directory) = &config.container_logs_dir else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let ours = std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&config.pod_logs_dir));
        if ours && !entry.path().exists() {
            remove_file(&entry.path());
        }
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "failed to remove a container's log");
    }
}

/// File names are bounded, so long pod names are cut.
fn link_name(pod: &str, namespace: &str, container: &str, container_id: &str) -> String {
    let suffix = format!(".{}", "log");
    let mut name = format!("{pod}_{namespace}_{container}-{container_id}");
    // Kubernetes names and container ids are ASCII.
    name.truncate(251);
    name + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams_and_bounded() {
        assert_eq!(link_name("web", "ns", "c", "0123"), "web_ns_c-0123.log");
        assert_eq!(link_name(&"x".repeat(300), "ns", "c", "0").len(), 255);
    }

    #[test]
    fn only_dangling_links_into_the_pod_logs_go() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("pods");
        let links = directory.path().join("containers");
        std::fs::create_dir_all(&links).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("0.log"), "x").unwrap();
        let link = |name: &str, target: &Path| std::os::unix::fs::symlink(target, links.join(name)).unwrap();
        link("alive", &logs.join("0.log"));
        link("dead", &logs.join("1.log"));
        link("foreign", Path::new("/nowhere/2.log"));
        let config = Config { pod_logs_dir: logs, container_logs_dir: Some(links.clone()), ..Config::default() };
        remove_dangling(&config);
        let mut names: Vec<_> = std::fs::read_dir(links).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["alive", "foreign"]);
    }
}
