//! Rotation of container logs: a log that grew too large is renamed, the runtime opens a new one, old ones are compressed
//! or removed.
//!
//! Invariant: never more than the configured number of files for one container.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use kedge_cri::Runtime;

use crate::agent::Agent;
use crate::runtime_state::PodRuntime;

/// Looks at the logs of all running containers from time to time, for ever.
pub(crate) async fn rotate_all(agent: Arc<Agent>) {
    let config = &agent.config;
    loop {
        tokio::time::sleep(config.container_log_monitor_interval).await;
        let states: Vec<Arc<PodRuntime>> = agent.states.uids().iter().map(|uid| agent.states.get(uid)).collect();
        for container in states.iter().flat_map(|state| &state.containers).filter(|container| container.running()) {
            let (max_bytes, max_files) = (config.container_log_max_bytes, config.container_log_max_files);
            let log = Path::new(&container.log_path);
            rotate(&agent.runtime, &container.id, log, max_bytes, max_files, agent.now()).await;
        }
    }
}

/// Rotates the log of a running container where it is too large.
async fn rotate(runtime: &Runtime, container_id: &str, log: &Path, max_bytes: u64, max_files: u32, now: Timestamp) {
    let Ok(metadata) = std::fs::metadata(log) else { return };
    if metadata.len() < max_bytes {
        return;
    }
    let path = log.to_owned();
    let prepared = tokio::task::spawn_blocking(move || prepare(&path, max_files)).await;
    if let Ok(Err(error)) = prepared {
        tracing::warn!(log = %log.display(), %error, "failed to rotate the older logs of a container");
    }
    let rotated = PathBuf::from(format!("{}.{}", log.display(), now.strftime("%Y%m%d-%H%M%S")));
    if let Err(error) = std::fs::rename(log, &rotated) {
        tracing::warn!(log = %log.display(), %error, "failed to rotate a container's log");
        return;
    }
    if let Err(error) = runtime.reopen_container_log(container_id).await {
        tracing::warn!(log = %log.display(), %error, "failed to reopen a container's log");
        // The runtime goes on writing to the old file, so it gets its name back.
        if let Err(error) = std::fs::rename(&rotated, log) {
            tracing::error!(log = %log.display(), %error, "failed to restore a container's log");
        }
    }
}

/// Compresses what was rotated before and removes what is too old, so that one more file fits.
fn prepare(log: &Path, max_files: u32) -> io::Result<()> {
    let mut old = rotated_logs(log)?;
    for path in &mut old {
        if path.extension().is_some_and(|extension| extension == "gz") {
            continue;
        }
        let compressed = PathBuf::from(format!("{}.gz", path.display()));
        compress(path, &compressed)?;
        std::fs::remove_file(&*path)?;
        *path = compressed;
    }
    let keep = usize::try_from(max_files).unwrap_or(usize::MAX).saturating_sub(2);
    let surplus = old.len().saturating_sub(keep);
    for path in &old[..surplus] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.tmp", to.display()));
    let mut encoder = GzEncoder::new(File::create(&temporary)?, Compression::default());
    io::copy(&mut File::open(from)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::rename(temporary, to)
}

/// The rotated files of a log, oldest first; left-over temporary files are removed.
fn rotated_logs(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !file.starts_with(&prefix) {
            continue;
        }
        if file.ends_with(".tmp") {
            std::fs::remove_file(&path)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_are_compressed_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        for name in [
            "0.log",
            "0.log.20260101-000001.gz",
            "0.log.20260101-000002.gz",
            "0.log.20260101-000003",
            "0.log.x.tmp",
            "1.log",
        ] {
            std::fs::write(directory.path().join(name), "text").unwrap();
        }
        prepare(&log, 4).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.20260101-000002.gz", "0.log.20260101-000003.gz", "1.log"]);
    }
}
