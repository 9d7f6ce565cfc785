//! A containerd of Kedge's own, for machines where none runs: its life from start to stop.
//!
//! It has its own root, state, socket and configuration and leaves the machine's containerd alone. It is not our child in
//! any way that matters: invariant: it and its containers go on when this process ends or is killed, and the next start
//! adopts it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{CgroupDriver, ContainerdVersion, Settings, render};
use crate::error::CriError;
use crate::host;
use crate::layout::Layout;
use crate::process;
use crate::runtime::Runtime;

/// How often a supervised containerd is looked at.
const SUPERVISE_INTERVAL: Duration = Duration::from_secs(2);
/// A running containerd that does not answer for this long at adoption is taken for hung.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Where and how to run it.
#[derive(Clone, Debug)]
pub struct PrivateContainerdConfig {
    /// The directory that belongs to it alone, such as `/var/lib/kedge/containerd`.
    pub data_dir: PathBuf,
    /// CNI plugin binaries.
    pub cni_bin_dir: PathBuf,
    /// CNI network configurations.
    pub cni_conf_dir: PathBuf,
    /// The image of the sandbox container; it must be imported or pullable.
    pub sandbox_image: String,
    /// Who manages cgroups.
    pub cgroup_driver: CgroupDriver,
    /// How long a start may take.
    pub start_timeout: Duration,
}

impl PrivateContainerdConfig {
    /// Debian's CNI directories, upstream's pause image, cgroupfs, 30 seconds.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cni_bin_dir: PathBuf::from("/usr/lib/cni"),
            cni_conf_dir: PathBuf::from("/etc/cni/net.d"),
            sandbox_image: "registry.k8s.io/pause:3.10.1".to_owned(),
            cgroup_driver: CgroupDriver::default(),
            start_timeout: Duration::from_secs(30),
        }
    }
}

/// A containerd that could not be started, adopted or stopped.
#[derive(Debug, thiserror::Error)]
pub enum PrivateContainerdError {
    /// A program is not installed.
    #[error("`{program}` is not on PATH; install it with `apt-get install {package}`")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// `containerd --version` failed or answered something else.
    #[error("`containerd --version` did not tell a version (it said {answer:?}); is the package whole?")]
    Version {
        /// What it said.
        answer: String,
    },
    /// A file or directory could not be read or written.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("could not start containerd through `setsid` (package util-linux)")]
    Spawn(#[source] io::Error),
    /// It ended during its start.
    #[error("containerd ended during its start ({status}): {tail}; see {}", log.display())]
    Exited {
        /// Its exit status.
        status: String,
        /// The telling lines of its log.
        tail: String,
        /// Its log.
        log: PathBuf,
    },
    /// It runs, but its CRI plugin does not answer.
    #[error("containerd did not answer within {} s: {tail}; see {}", waited.as_secs(), log.display())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// The telling lines of its log.
        tail: String,
        /// Its log.
        log: PathBuf,
        /// The last answer.
        source: CriError,
    },
    /// It does not end, not even by SIGKILL.
    #[error("containerd (pid {pid}) does not end; it may be stuck on a disk")]
    DoesNotEnd {
        /// Its pid.
        pid: u32,
    },
    /// The signal could not be sent.
    #[error("could not signal containerd (pid {pid})")]
    Signal {
        /// Its pid.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// The client could not be made.
    #[error("could not make a client for containerd")]
    Client(#[from] CriError),
}

/// A running private containerd. Dropping this ends nothing.
#[derive(Debug)]
pub struct PrivateContainerd {
    layout: Layout,
    start_timeout: Duration,
    pid: u32,
    adopted: bool,
    snapshotter: String,
    runtime: Runtime,
}

impl PrivateContainerd {
    /// Adopts the containerd of this data directory where it runs with the same configuration and answers, else starts it.
    /// A running one with another configuration is restarted; its containers are not.
    pub async fn start(config: PrivateContainerdConfig) -> Result<Self, PrivateContainerdError> {
        for (program, package) in
            [("containerd", "containerd"), ("containerd-shim-runc-v2", "containerd"), ("runc", "runc")]
        {
            host::find_program(program).ok_or(PrivateContainerdError::ProgramMissing { program, package })?;
        }
        let layout = Layout::new(&config.data_dir).map_err(|source| file("find", &config.data_dir, source))?;
        layout.create()?;
        layout.forget_other_boot()?;
        let version = containerd_version().await?;
        let snapshotter = layout.snapshotter()?;
        let text = render(&settings(&config, &layout, version, &snapshotter));
        let changed = layout.write_config(&text)?;
        let runtime = Runtime::connect_lazy(&layout.endpoint())?;
        let start_timeout = config.start_timeout;
        let mut this = Self { layout, start_timeout, pid: 0, adopted: false, snapshotter, runtime };
        if !this.adopt(changed).await? {
            this.spawn().await?;
        }
        Ok(this)
    }

    /// The one that runs for this data directory, whatever its configuration; `None` where none does.
    pub async fn find(data_dir: &Path) -> Option<Self> {
        let layout = Layout::new(data_dir).ok()?;
        let pid = process::find(&layout.pid_file(), &layout.config_file())?;
        let snapshotter = layout.recorded_snapshotter()?;
        let runtime = Runtime::connect_lazy(&layout.endpoint()).ok()?;
        Some(Self { layout, start_timeout: Duration::from_secs(30), pid, adopted: true, snapshotter, runtime })
    }

    /// Whether it ran before this process did.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Its CRI endpoint, as `unix:///path`.
    pub fn endpoint(&self) -> String {
        self.layout.endpoint()
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.layout.socket()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The snapshotter of its CRI plugin: `overlayfs`, or `native` where overlays cannot be mounted.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Its log; at most 8 MiB, and as much again in the file `.1` beside it.
    pub fn log_path(&self) -> PathBuf {
        self.layout.log_file()
    }

    /// A client for it.
    pub fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }

    /// Starts it anew where it died; whether that was so.
    pub async fn ensure_running(&mut self) -> Result<bool, PrivateContainerdError> {
        if process::is_ours(self.pid, &self.layout.config_file()) {
            return Ok(false);
        }
        warn!(pid = self.pid, log = %self.log_path().display(), "containerd is gone; starting it again");
        self.spawn().await?;
        Ok(true)
    }

    /// Restarts it whenever it died, and bounds its log, until `shutdown`. It goes on after that.
    pub async fn supervise(mut self, shutdown: CancellationToken) -> Self {
        while shutdown.run_until_cancelled(tokio::time::sleep(SUPERVISE_INTERVAL)).await.is_some() {
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.ensure_running()).await {
                warn!(error = &error as &dyn std::error::Error, "could not restart containerd; trying again");
            }
            if let Err(error) = process::bound_log(&self.log_path()) {
                warn!(%error, "could not bound the log of containerd");
            }
        }
        self
    }

    /// Ends it, and only it: its containers go on below their shims. Remove the sandboxes first to end those.
    pub async fn stop(self) -> Result<(), PrivateContainerdError> {
        self.terminate(self.pid).await?;
        self.layout.remove_runtime_files();
        Ok(())
    }

    /// Removes everything it kept on disk, after it was stopped and its sandboxes were removed.
    ///
    /// # Errors
    /// When something is still mounted below the directory, or a file cannot be removed.
    pub fn remove_files(data_dir: &Path) -> io::Result<()> {
        Layout::new(data_dir)?.remove_all()
    }

    async fn adopt(&mut self, changed: bool) -> Result<bool, PrivateContainerdError> {
        let Some(pid) = process::find(&self.layout.pid_file(), &self.layout.config_file()) else { return Ok(false) };
        if changed {
            info!(pid, "the configuration of containerd changed; restarting it");
        } else if self.answers_within(ADOPT_TIMEOUT).await.is_ok() {
            self.pid = pid;
            self.adopted = true;
            self.layout.write_pid(pid)?;
            return Ok(true);
        } else {
            warn!(pid, "containerd runs but does not answer; restarting it");
        }
        self.terminate(pid).await?;
        Ok(false)
    }

    async fn terminate(&self, pid: u32) -> Result<(), PrivateContainerdError> {
        match process::terminate(pid, &self.layout.config_file()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(PrivateContainerdError::DoesNotEnd { pid }),
            Err(source) => Err(PrivateContainerdError::Signal { pid, source }),
        }
    }

    async fn spawn(&mut self) -> Result<(), PrivateContainerdError> {
        let log = self.log_path();
        process::bound_log(&log).map_err(|source| file("bound", &log, source))?;
        let mut child = process::spawn(&self.layout.config_file(), &log, self.layout.data_dir())
            .map_err(PrivateContainerdError::Spawn)?;
        self.pid = child.id().expect("a child that was not waited for has a pid");
        self.adopted = false;
        self.layout.write_pid(self.pid)?;
        let ready = self.wait_until_ready(&mut child).await;
        // Somebody must wait for it, or it stays as a zombie when it dies while we live.
        tokio::spawn(async move { child.wait().await });
        ready
    }

    async fn wait_until_ready(&self, child: &mut Child) -> Result<(), PrivateContainerdError> {
        let log = self.log_path();
        let answer = tokio::select! {
            answer = self.answers_within(self.start_timeout) => answer,
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(PrivateContainerdError::Exited { status, tail: process::log_tail(&log), log });
            }
        };
        answer.map_err(|source| PrivateContainerdError::NotReady {
            waited: self.start_timeout,
            tail: process::log_tail(&log),
            log,
            source,
        })
    }

    /// Waits for the CRI plugin, which comes up a little after the socket does; the last error at the deadline.
    async fn answers_within(&self, limit: Duration) -> Result<(), CriError> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = tokio::time::timeout(limit, self.runtime.status(false)).await;
            match answer.unwrap_or_else(|_| Err(CriError::deadline("Status"))) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> PrivateContainerdError {
    PrivateContainerdError::File { action, path: path.to_owned(), source }
}

async fn containerd_version() -> Result<ContainerdVersion, PrivateContainerdError> {
    let program = host::find_program("containerd")
        .ok_or(PrivateContainerdError::ProgramMissing { program: "containerd", package: "containerd" })?;
    let output =
        tokio::process::Command::new(program).arg("--version").output().await.map_err(PrivateContainerdError::Spawn)?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ContainerdVersion::parse(&answer).ok_or(PrivateContainerdError::Version { answer })
}

fn settings(
    config: &PrivateContainerdConfig,
    layout: &Layout,
    version: ContainerdVersion,
    snapshotter: &str,
) -> Settings {
    Settings {
        version,
        root: layout.root(),
        state: layout.state(),
        socket: layout.socket().to_owned(),
        opt: layout.opt(),
        registries: layout.registries(),
        cni_bin_dir: config.cni_bin_dir.clone(),
        cni_conf_dir: config.cni_conf_dir.clone(),
        sandbox_image: config.sandbox_image.clone(),
        snapshotter: snapshotter.to_owned(),
        cgroup_driver: config.cgroup_driver,
        restrict_oom_score_adj: !host::can_lower_oom_score(),
        disable_apparmor: !host::apparmor_usable(),
    }
}
