//! Commands on a node.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::cgroups;
use crate::error::Error;
use crate::name::NodeName;
use crate::node::{read, running};
use crate::plan::environment;

/// What of the caller's environment a command on a node gets.
const KEPT: [&str; 3] = ["TERM", "LANG", "NO_COLOR"];

/// Replaces this process with a command on a node, with the same standard input and output. Returns only where that
/// fails.
pub fn exec(clusters: &Path, name: &NodeName, command: &[String]) -> Error {
    match prepare(clusters, name, command) {
        Ok(mut prepared) => Error::Spawn { command: command.join(" "), source: prepared.exec() },
        Err(error) => error,
    }
}

fn prepare(clusters: &Path, name: &NodeName, command: &[String]) -> Result<Command, Error> {
    let (layout, record) = read(clusters, name)?;
    record.node(name)?;
    let init = running(&layout.node(name))?.ok_or_else(|| Error::Off { node: name.to_string() })?;
    // What a command on a node uses counts as the node's.
    cgroups::enter_system(name)?;
    let mut prepared = Command::new("nsenter");
    prepared.args(["--target", &init.pid.to_string()]);
    prepared.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]).args(command);
    prepared.env_clear().envs(environment(&record.log)).current_dir("/");
    prepared.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    Ok(prepared)
}
