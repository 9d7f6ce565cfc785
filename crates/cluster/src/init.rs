//! The first process of a node: builds the node's file system, runs kedge (and a store, where control planes share one),
//! starts them again when they end, and collects processes that nobody else waits for.
//!
//! Invariant: the node lives as long as this process does; the kernel ends every other process of the node with it.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::etcd::plan_member;
use crate::layout::{ClusterLayout, NODE_SHARED, Shared};
use crate::mounts;
use crate::name::NodeName;
use crate::plan::{Program, etc_files, plan_program};
use crate::record::{ClusterRecord, write_json};

/// The word for which a node waits before it starts.
pub(crate) const GO: &str = "go";
/// The signals that the machine sends: stop kedge, start kedge, switch the node off.
pub(crate) const STOP: Signal = Signal::SIGUSR1;
pub(crate) const START: Signal = Signal::SIGUSR2;
pub(crate) const SHUT_DOWN: Signal = Signal::SIGTERM;

const SHUT_DOWN_PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Who ran for longer than this did not fail at its start.
const LASTING: Duration = Duration::from_secs(30);

/// What the first process says of kedge on its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Agent {
    /// Whether it runs.
    pub(crate) is_running: bool,
    /// Whether it is meant to run.
    pub(crate) is_wanted: bool,
    /// How often it was started.
    pub(crate) starts: u32,
}

/// Is the first process of a node, until it is told to end.
pub fn init(cluster_dir: &Path, node: &NodeName) -> Result<(), Error> {
    let layout = ClusterLayout::at(cluster_dir);
    let record = ClusterRecord::read(&layout)?;
    let own = record.node(node)?;
    let (kedge, others) = (plan_program(&record, own), plan_member(&record, own).into_iter().collect());
    if !is_told_to_go() {
        return Ok(());
    }
    mounts::build(&layout.node(node), &etc_files(&record, node))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Spawn { command: "kedge cluster init".to_owned(), source })?;
    runtime.block_on(Keeper::new(kedge, others).run())
}

/// The machine says so once the node has its network; it says nothing where it gave up.
fn is_told_to_go() -> bool {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == GO
}

/// Keeps the node's programs running.
struct Keeper {
    kedge: Service,
    /// What runs as long as the node is on, whether kedge is wanted or not.
    others: Vec<Service>,
    shared: Shared,
}

/// One program, started again whenever it ends.
struct Service {
    program: Program,
    log: PathBuf,
    output: Option<PathBuf>,
    is_wanted: bool,
    starts: u32,
    process: Option<(Pid, Instant)>,
    pause: Duration,
}

impl Keeper {
    fn new(kedge: Program, others: Vec<Program>) -> Self {
        let shared = Shared::at(NODE_SHARED);
        let other = |program: Program| Service::new(shared.file(format!("{}.log", program.path)), None, program);
        Self {
            kedge: Service::new(shared.log(), Some(shared.ready()), kedge),
            others: others.into_iter().map(other).collect(),
            shared,
        }
    }

    fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.others.iter_mut().chain(std::iter::once(&mut self.kedge))
    }

    async fn run(mut self) -> Result<(), Error> {
        let failed = |source| Error::Spawn { command: "kedge cluster init".to_owned(), source };
        let listen = |kind| signal(kind).map_err(failed);
        let (mut stop, mut start) = (listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?);
        let (mut shut_down, mut child) = (listen(SignalKind::terminate())?, listen(SignalKind::child())?);
        self.services().for_each(Service::spawn);
        self.tell();
        // It waits from now on, one for each node.
        kedge_memory::release_code();
        kedge_memory::release_heap();
        loop {
            let again = self.services().filter_map(|service| service.next_start()).min();
            tokio::select! {
                _ = child.recv() => self.collect(),
                _ = stop.recv() => self.kedge.want(false),
                _ = start.recv() => self.kedge.want(true),
                _ = shut_down.recv() => return self.end(&mut child).await,
                () = wait_until(again) => self.services().for_each(Service::retry),
            }
            self.tell();
        }
    }

    /// Collects every process that has ended, our own among them.
    fn collect(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                    self.services().for_each(|service| service.ended(pid));
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                _ => {}
            }
        }
    }

    /// kedge first, as it needs the others for its own end.
    async fn end(mut self, child: &mut tokio::signal::unix::Signal) -> Result<(), Error> {
        let deadline = Instant::now() + SHUT_DOWN_PATIENCE;
        self.kedge.want(false);
        while self.services().any(|service| service.process.is_some()) {
            if self.kedge.process.is_none() {
                self.others.iter_mut().filter(|other| other.is_wanted).for_each(|other| other.want(false));
            }
            tokio::select! {
                _ = child.recv() => self.collect(),
                () = sleep_until(deadline) => break,
            }
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let kedge = &self.kedge;
        let agent = Agent { is_running: kedge.process.is_some(), is_wanted: kedge.is_wanted, starts: kedge.starts };
        if let Err(error) = write_json(&self.shared.agent(), &agent) {
            tracing::error!(%error, "the state of kedge can't be written");
        }
    }
}

impl Service {
    fn new(log: PathBuf, output: Option<PathBuf>, program: Program) -> Self {
        Self { program, log, output, is_wanted: true, starts: 0, process: None, pause: SHORTEST_PAUSE }
    }

    fn want(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
        match self.process {
            Some((pid, _)) if !is_wanted => {
                // It may have ended already, which is what is wanted.
                let _ = kill(pid, Signal::SIGTERM);
            }
            None if is_wanted => {
                self.pause = SHORTEST_PAUSE;
                self.spawn();
            }
            _ => {}
        }
    }

    /// When it is to be started again.
    fn next_start(&self) -> Option<Instant> {
        (self.is_wanted && self.process.is_none()).then(|| Instant::now() + self.pause)
    }

    fn retry(&mut self) {
        if self.is_wanted && self.process.is_none() {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.spawn();
        }
    }

    fn spawn(&mut self) {
        match self.try_spawn() {
            Ok(pid) => {
                self.process = Some((pid, Instant::now()));
                self.starts += 1;
            }
            Err(error) => tracing::error!(%error, program = self.program.path, "a program can't be started"),
        }
    }

    fn try_spawn(&self) -> io::Result<Pid> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).env_clear().envs(self.program.environment.iter().cloned());
        command.current_dir("/").stdin(Stdio::null());
        match &self.output {
            Some(output) => command.stdout(File::create(output)?),
            None => command.stdout(log.try_clone()?),
        };
        let child = command.stderr(log).spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }

    fn ended(&mut self, ended: Pid) {
        if let Some((pid, since)) = self.process
            && pid == ended
        {
            if since.elapsed() > LASTING {
                self.pause = SHORTEST_PAUSE;
            }
            self.process = None;
        }
    }
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
