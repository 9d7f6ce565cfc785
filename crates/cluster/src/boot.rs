//! From the machine into a node: the program that makes a node's namespaces and starts its first process there.
//!
//! It runs as a process of its own, before it has other threads. Invariant: when it ends well, the first process exists and
//! waits for its word on standard input.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use crate::cgroups;
use crate::error::Error;
use crate::name::NodeName;

/// Makes the namespaces and starts `kedge cluster init` in them, with this process's standard input and error. Returns the
/// process id of the node's first process.
pub fn boot(cluster_dir: &Path, node: &NodeName) -> Result<u32, Error> {
    let kernel = |action: &str| {
        let action = action.to_owned();
        move |source| Error::Kernel { action, source }
    };
    // A hang-up of the terminal is not the node's business.
    nix::unistd::setsid().map_err(kernel("begin a session"))?;
    cgroups::enter(node)?;
    let own = CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    unshare(own).map_err(kernel("make namespaces"))?;
    cgroups::enter_system(node)?;
    nix::unistd::sethostname(node.to_string()).map_err(kernel("set a host name"))?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["cluster", "init", "--cluster-dir"]).arg(cluster_dir).arg(node.to_string());
    command.stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|source| Error::Spawn { command: "kedge cluster init".to_owned(), source })?;
    Ok(child.id())
}
