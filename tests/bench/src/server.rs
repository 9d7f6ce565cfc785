//! A control plane under test: a child process with a data directory of its own.
//!
//! Invariant: the process does not outlive the value.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::connection::{Call, Connection};
use crate::target::Target;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running control plane.
pub(crate) struct Server {
    process: Process,
    pub(crate) target: Target,
    /// From the start of the process to the answer of `/readyz`.
    pub(crate) ready_after: Duration,
    /// Processor time until then.
    pub(crate) cpu: Duration,
}

impl Server {
    /// Starts a control plane on a directory, with what a former one left there, and waits until `/readyz` is ok.
    pub(crate) async fn start(binary: &Path, dir: &Path) -> Result<Self> {
        Self::start_with(binary, dir, &[]).await
    }

    /// The same with further flags.
    pub(crate) async fn start_with(binary: &Path, dir: &Path, flags: &[&str]) -> Result<Self> {
        let port = free_port()?.to_string();
        let mut command = Command::new(binary);
        command.arg("up").arg("--control-plane-only").arg("--data-dir").arg(dir.join("data"));
        command.args(["--secure-port", &port, "--node-ip", "127.0.0.1", "--node-name", "bench", "--output", "json"]);
        command.arg("--kubeconfig").arg(dir.join("config")).args(flags);
        let began = Instant::now();
        let mut process = Process::start(command, dir)?;
        let (admin, url) = (dir.join("data").join("admin.conf"), format!("https://127.0.0.1:{port}"));
        loop {
            if let Some(target) = ready(&admin, &url).await {
                let target = Target { process: Some(process.id()), ..target };
                let (ready_after, cpu) = (began.elapsed(), cpu_time(process.id()));
                return Ok(Self { process, target, ready_after, cpu });
            }
            process.check_runs()?;
            if began.elapsed() > PATIENCE {
                bail!("/readyz was not ok after {PATIENCE:?}\n{}", process.log());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the process as a service manager does.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.stop()
    }

    /// Processor time of the process so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time(self.process.id())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.process.id())
    }
}

/// The target, once an administrator's first request is answered.
async fn ready(admin: &Path, url: &str) -> Option<Target> {
    let target = Target::from_kubeconfig(admin, Some(url)).ok()?;
    let body = Connection::open(&target).await.ok()?.read(&Call::get("/readyz")).await.ok()?;
    (body == "ok").then_some(target)
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A child process whose output goes to files.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it says is kept in `dir`.
    pub(crate) fn start(mut command: Command, dir: &Path) -> Result<Self> {
        let (output, log) = (dir.join("output"), dir.join("log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, output, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it said so far on standard output.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub(crate) fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the process ended: {status}\n{}", self.log()),
        }
    }

    /// Whether it has not ended yet, however it ends.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.check_runs()?;
        kill(Pid::from_raw(i32::try_from(self.id())?), Signal::SIGTERM)?;
        let began = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the process did not end well: {status}\n{}", self.log()),
                None if began.elapsed() > PATIENCE => bail!("the process did not end after {PATIENCE:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of a process, in MB (10⁶ bytes).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, with pages of files that others share.
    pub(crate) resident: f64,
    /// Resident, with shared pages divided among those who share them.
    pub(crate) proportional: f64,
    /// The most that was ever resident.
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (status, rollup) = (read("status")?, read("smaps_rollup")?);
        Ok(Self {
            resident: megabytes(&status, "VmRSS:")?,
            proportional: megabytes(&rollup, "Pss:")?,
            peak: megabytes(&status, "VmHWM:")?,
        })
    }
}

/// The value of a line such as `VmRSS:    1234 kB`, where kB are 1,024 bytes.
fn megabytes(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let number: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(number * 1024.0 / 1e6)
}

/// User and system time of a process; zero where it is gone.
pub(crate) fn cpu_time(process: u32) -> Duration {
    /// The kernel's unit towards programs, on all of Linux's architectures that matter here.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field, the name in parentheses, may hold spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_megabytes() {
        let text = "Name:\tkedge\nVmHWM:\t   50000 kB\nVmRSS:\t   40000 kB\n";
        assert_eq!(megabytes(text, "VmRSS:").unwrap(), 40.96);
        assert!(megabytes(text, "Pss:").is_err());
        let own = Memory::of(std::process::id()).unwrap();
        assert!(own.resident > 0.0 && own.peak >= own.resident && own.proportional <= own.peak, "{own:?}");
    }
}
