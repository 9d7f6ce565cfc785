//! NFS volumes, mounted by the host's `mount` program.
//!
//! Not an NFS client. Invariant: a mount that fails leaves no directory behind, and its error shows what was run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{NFSVolumeSource, Pod};
use tokio::process::Command;

use crate::mount_table::is_mount_point;
use crate::pod;
use crate::set_up::Volumes;

const PLUGIN: &str = "kubernetes.io/nfs";
/// A server that does not answer must not hold its pod's worker for ever.
const DEADLINE: Duration = Duration::from_secs(120);

/// Mounts the export, once.
pub(crate) async fn ensure(
    volumes: &Volumes,
    pod: &Pod,
    name: &str,
    source: &NFSVolumeSource,
    options: &[String],
) -> Result<PathBuf, String> {
    let directory = volumes.deps.dirs.volume(pod::uid(pod), PLUGIN, name);
    if is_mount_point(&directory) {
        return Ok(directory);
    }
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let arguments = arguments(source, options, &directory);
    if let Err(error) = mount(&arguments).await {
        if !is_mount_point(&directory)
            && let Err(problem) = std::fs::remove_dir(&directory)
        {
            tracing::warn!(path = %directory.display(), error = %problem, "failed to remove a volume's directory");
        }
        return Err(error);
    }
    Ok(directory)
}

/// What `mount` is told.
fn arguments(source: &NFSVolumeSource, options: &[String], target: &Path) -> Vec<String> {
    let mut options = options.to_vec();
    if source.read_only.unwrap_or(false) {
        options.push("ro".to_owned());
    }
    // An address of IPv6 has colons of its own.
    let server = match source.server.contains(':') && !source.server.starts_with('[') {
        true => format!("[{}]", source.server),
        false => source.server.clone(),
    };
    let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
    if !options.is_empty() {
        arguments.extend(["-o".to_owned(), options.join(",")]);
    }
    arguments.extend([format!("{server}:{}", source.path), target.to_string_lossy().into_owned()]);
    arguments
}

async fn mount(arguments: &[String]) -> Result<(), String> {
    let text = |status: &str, output: &str| {
        let arguments = arguments.join(" ");
        format!("mount failed: {status}\nMounting command: mount\nMounting arguments: {arguments}\nOutput: {output}\n")
    };
    let run = Command::new("mount").args(arguments).kill_on_drop(true).output();
    let output = match tokio::time::timeout(DEADLINE, run).await {
        Err(_) => return Err(text("signal: killed", "")),
        Ok(Err(error)) => return Err(text(&error.to_string(), "")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let status = match output.status.code() {
        Some(code) => format!("exit status {code}"),
        None => "signal: killed".to_owned(),
    };
    let said = [output.stdout, output.stderr].concat();
    Err(text(&status, String::from_utf8_lossy(&said).trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_is_told_what_upstream_tells_it() {
        let check = |server: &str, read_only: bool, options: &[&str], expected: &str| {
            let source =
                NFSVolumeSource { server: server.to_owned(), path: "/x".to_owned(), read_only: Some(read_only) };
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(arguments(&source, &options, Path::new("/t")).join(" "), expected);
        };
        check("nas", false, &[], "-t nfs nas:/x /t");
        check("nas", true, &["vers=4.1", "hard"], "-t nfs -o vers=4.1,hard,ro nas:/x /t");
        check("fd00::1", false, &[], "-t nfs [fd00::1]:/x /t");
    }

    #[tokio::test]
    async fn a_failed_mount_shows_what_was_run() {
        let arguments = ["-t", "kedge-no-such-type", "none", "/nowhere"].map(str::to_owned);
        let error = mount(&arguments).await.unwrap_err();
        assert!(error.starts_with("mount failed: exit status "), "{error}");
        let rest = "Mounting command: mount\nMounting arguments: -t kedge-no-such-type none /nowhere\nOutput: ";
        assert!(error.contains(rest), "{error}");
    }
}
