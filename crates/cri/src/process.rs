//! The containerd process: to start it detached, to find it again, to end it.
//!
//! It knows nothing of CRI. Invariant: a signal goes only to a process whose command line, read just before, names our
//! configuration file; a pid alone is never trusted, for the kernel gives pids out again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::host;

/// The log may grow to this before it is moved aside; twice this is the most that both files take.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// How much of the log's end is read to explain a failure.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// containerd needs a moment to close its database; its containers are not its children and go on.
const TERM_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Starts `containerd --config FILE` in its own session, with its output appended to the log.
///
/// `setsid` execs in place, as it does not lead a process group, so that the child's pid becomes containerd's. A terminal's
/// Ctrl-C or hang-up does not reach another session.
pub(crate) fn spawn(config_file: &Path, log_file: &Path, data_dir: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log_file)?;
    Command::new("setsid")
        .arg("containerd")
        .arg("--config")
        .arg(config_file)
        .env("PATH", host::service_path())
        // Otherwise containerd would report itself ready to systemd in our name.
        .env_remove("NOTIFY_SOCKET")
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(false)
        .spawn()
}

/// Whether this process is alive and is containerd with our configuration file.
pub(crate) fn is_ours(pid: u32, config_file: &Path) -> bool {
    let Ok(cmdline) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    is_containerd_with(&cmdline, config_file) && !is_zombie(pid)
}

fn is_containerd_with(cmdline: &[u8], config_file: &Path) -> bool {
    let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let program = arguments[0].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let config = config_file.as_os_str().as_encoded_bytes();
    program == b"containerd" && arguments.windows(2).any(|pair| pair[0] == b"--config" && pair[1] == config)
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so the state is looked for behind the last one.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// The containerd that runs with this configuration file: the one of the pid file, else any (the pid file may be lost).
pub(crate) fn find(pid_file: &Path, config_file: &Path) -> Option<u32> {
    let recorded = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(pid) = recorded.filter(|pid| is_ours(*pid, config_file)) {
        return Some(pid);
    }
    let entries = fs::read_dir("/proc").ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| is_ours(*pid, config_file))
}

/// Ends it: SIGTERM, and SIGKILL when it has not gone within ten seconds. `Ok(false)`: it is still there.
pub(crate) async fn terminate(pid: u32, config_file: &Path) -> io::Result<bool> {
    for (signal, grace) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, Duration::from_secs(5))] {
        if !is_ours(pid, config_file) {
            return Ok(true);
        }
        let target = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
        match kill(target, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + grace;
        while is_ours(pid, config_file) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(!is_ours(pid, config_file))
}

/// Moves a log that has grown too large aside, as `<name>.1`, and empties it in place: containerd holds it open and
/// appends, so that renaming would not help.
pub(crate) fn bound_log(log_file: &Path) -> io::Result<()> {
    if fs::metadata(log_file).map_or(0, |file| file.len()) <= MAX_LOG_BYTES {
        return Ok(());
    }
    fs::copy(log_file, old_log(log_file))?;
    OpenOptions::new().write(true).open(log_file)?.set_len(0)
}

fn old_log(log_file: &Path) -> PathBuf {
    let mut name = log_file.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// The last lines of the log that tell of a failure, or else the last ones.
pub(crate) fn log_tail(log_file: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log_file).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => telling_lines(&String::from_utf8_lossy(&bytes)),
        Err(_) => String::new(),
    }
}

/// What it says when it gives up tells most; its errors before that are often harmless, such as a missing CNI network.
fn telling_lines(log: &str) -> String {
    let with = |marks: &[&str]| log.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
    let candidates: [Vec<&str>; 3] = [with(&["level=fatal", "containerd: "]), with(&["level=error"]), with(&[""])];
    let lines = candidates.into_iter().find(|lines| !lines.is_empty()).unwrap_or_default();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_command_line_matches() {
        let check = |cmdline: &str, expected: bool| {
            assert_eq!(is_containerd_with(cmdline.as_bytes(), Path::new("/d/config.toml")), expected, "{cmdline:?}");
        };
        check("containerd\0--config\0/d/config.toml\0", true);
        check("/usr/bin/containerd\0--config\0/d/config.toml\0", true);
        check("/usr/bin/containerd\0", false);
        check("containerd\0--config\0/etc/containerd/config.toml\0", false);
        check("vi\0--config\0/d/config.toml\0", false);
        check("setsid\0containerd\0--config\0/d/config.toml\0", false);
        check("", false);
    }

    #[test]
    fn a_failure_is_told_by_its_own_lines() {
        let check = |log: &str, expected: &str| assert_eq!(telling_lines(log), expected);
        check("a level=info\nb level=fatal x\nc level=info", "b level=fatal x");
        check("a level=error cni\ncontainerd: failed to listen", "containerd: failed to listen");
        check("a level=info\nb level=error x", "b level=error x");
        check("one\ntwo\nthree\nfour", "two; three; four");
        check("", "");
    }

    #[test]
    fn a_large_log_is_moved_aside() {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = dir.path().join("containerd.log");
        let file = File::create(&log).expect("create");
        file.set_len(MAX_LOG_BYTES).expect("grow");
        bound_log(&log).expect("within bounds");
        assert!(!old_log(&log).exists());
        file.set_len(MAX_LOG_BYTES + 1).expect("grow");
        bound_log(&log).expect("bound");
        assert_eq!(fs::metadata(&log).expect("log").len(), 0);
        assert_eq!(fs::metadata(old_log(&log)).expect("old log").len(), MAX_LOG_BYTES + 1);
    }
}
