//! A node on and off, and its cable in and out.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_lifecycle::ProcessMark;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups;
use crate::error::Error;
use crate::gateway;
use crate::init::{Agent, GO, SHUT_DOWN, START, STOP};
use crate::layout::{ClusterLayout, NodeLayout};
use crate::mounts;
use crate::name::NodeName;
use crate::plan::KUBELET_CONFIG;
use crate::record::{ClusterRecord, NodeRecord, read_json, write_json};
use crate::switch;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);

/// How a node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// kedge ends; containers run on, as when a service is stopped.
    Agent,
    /// Everything ends in order.
    Shutdown,
    /// Everything ends at once, as when the power fails.
    Power,
}

/// Starts a node: kedge where only that was stopped, everything where the node is off.
pub fn start(clusters: &Path, name: &NodeName) -> Result<(), Error> {
    let (layout, record) = read(clusters, name)?;
    let node = record.node(name)?;
    match running(&layout.node(name))? {
        Some(init) => {
            signal(init, START)?;
            wait_for(&format!("{name}: the start of kedge"), PATIENCE, || agent(&layout.node(name)).is_running)
        }
        None => {
            ensure_segment(&layout, &record)?;
            power_on(&layout, &record, node)
        }
    }
}

/// Stops a node.
pub fn stop(clusters: &Path, name: &NodeName, how: Stop) -> Result<(), Error> {
    let (layout, record) = read(clusters, name)?;
    record.node(name)?;
    let files = layout.node(name);
    let init = running(&files)?.ok_or_else(|| Error::Off { node: name.to_string() })?;
    match how {
        Stop::Agent => {
            signal(init, STOP)?;
            wait_for(&format!("{name}: the end of kedge"), PATIENCE, || !agent(&files).is_running)
        }
        Stop::Shutdown => switch_off(name, init, SHUT_DOWN),
        Stop::Power => switch_off(name, init, Signal::SIGKILL),
    }
}

/// Pulls a node's cable.
pub fn cut(clusters: &Path, name: &NodeName) -> Result<(), Error> {
    set_link(clusters, name, false)
}

/// Plugs a node's cable in again.
pub fn heal(clusters: &Path, name: &NodeName) -> Result<(), Error> {
    set_link(clusters, name, true)
}

fn set_link(clusters: &Path, name: &NodeName, is_up: bool) -> Result<(), Error> {
    let (layout, record) = read(clusters, name)?;
    record.node(name)?;
    running(&layout.node(name))?.ok_or_else(|| Error::Off { node: name.to_string() })?;
    switch::set_link(name, is_up)
}

/// The record of a node's cluster.
pub(crate) fn read(clusters: &Path, name: &NodeName) -> Result<(ClusterLayout, ClusterRecord), Error> {
    let layout = ClusterLayout::new(clusters, name.cluster());
    let record = ClusterRecord::read(&layout)?;
    Ok((layout, record))
}

/// The bridge, and the way from the machine to the API server.
pub(crate) fn ensure_segment(layout: &ClusterLayout, record: &ClusterRecord) -> Result<(), Error> {
    switch::ensure(&record.name)?;
    gateway::ensure(layout, record)
}

/// Switches a node on that is off.
pub(crate) fn power_on(layout: &ClusterLayout, record: &ClusterRecord, node: &NodeRecord) -> Result<(), Error> {
    let files = layout.node(&node.name);
    for directory in mounts::directories(&files) {
        fs::create_dir_all(&directory).map_err(|source| Error::File { action: "make", path: directory, source })?;
    }
    if let Some(text) = &record.kubelet_config {
        let path = files.data().join(KUBELET_CONFIG);
        fs::write(&path, text).map_err(|source| Error::File { action: "write", path, source })?;
    }
    // Of the node's life before.
    let _ = fs::remove_file(files.shared().ready());
    cgroups::remove_node(&node.name);
    let (pid, mut word) = boot(layout, node)?;
    let mark = ProcessMark::of(pid).ok_or_else(|| not_started(&files, node))?;
    write_json(&files.init(), &mark)?;
    let begun = switch::attach(node, pid).and_then(|()| {
        let told = writeln!(word, "{GO}").and_then(|()| word.flush());
        told.map_err(|_| not_started(&files, node))
    });
    drop(word);
    if let Err(error) = begun {
        // It ends by itself too, as nobody will give it its word.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        return Err(error);
    }
    wait_for(&format!("{}: the start of its first process", node.name), PATIENCE, || {
        agent(&files).starts > 0 || !mark.is_running()
    })?;
    if mark.is_running() { Ok(()) } else { Err(not_started(&files, node)) }
}

/// Runs `kedge cluster boot`; the process id of the node's first process, and the way to give it a word.
fn boot(layout: &ClusterLayout, node: &NodeRecord) -> Result<(i32, std::process::ChildStdin), Error> {
    let shown = || "kedge cluster boot".to_owned();
    let spawn = |source| Error::Spawn { command: shown(), source };
    let files = layout.node(&node.name);
    // A life before has left its word.
    let _ = fs::remove_file(files.shared().agent());
    let log = fs::File::create(files.init_log());
    let log = log.map_err(|source| Error::File { action: "make", path: files.init_log(), source })?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["cluster", "boot", "--cluster-dir"]).arg(layout.root()).arg(node.name.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(spawn)?;
    let word = child.stdin.take().ok_or_else(|| not_started(&files, node))?;
    let output = child.wait_with_output().map_err(spawn)?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    match pid.filter(|_| output.status.success()) {
        Some(pid) => Ok((pid, word)),
        None => Err(not_started(&files, node)),
    }
}

fn not_started(files: &NodeLayout, node: &NodeRecord) -> Error {
    let log = fs::read_to_string(files.init_log()).unwrap_or_default();
    Error::NotReached {
        what: format!("the node {} did not start: {}", node.name, log.trim()),
        advice: format!("see {}", files.init_log().display()),
    }
}

/// The first process of a node that is on.
pub(crate) fn running(files: &NodeLayout) -> Result<Option<ProcessMark>, Error> {
    Ok(read_json::<ProcessMark>(&files.init())?.filter(ProcessMark::is_running))
}

/// What a node's first process says of kedge.
pub(crate) fn agent(files: &NodeLayout) -> Agent {
    // The file is not there before the first start.
    read_json(&files.shared().agent()).ok().flatten().unwrap_or_default()
}

/// Ends a node's first process, and with it everything on the node.
pub(crate) fn switch_off(name: &NodeName, init: ProcessMark, how: Signal) -> Result<(), Error> {
    signal(init, how)?;
    wait_for(&format!("{name}: the end of its processes"), PATIENCE, || !init.is_running())?;
    // The kernel may still be busy with the last of them; the next start, or deleting the cluster, tries again.
    cgroups::remove_node(name);
    Ok(())
}

fn signal(process: ProcessMark, what: Signal) -> Result<(), Error> {
    let sent = kill(Pid::from_raw(process.pid), what);
    sent.map_err(|source| Error::Kernel { action: format!("signal process {}", process.pid), source })
}
