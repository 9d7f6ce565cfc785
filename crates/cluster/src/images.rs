//! Images from archives into the container runtimes of all nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::layout::{ClusterLayout, NODE_PROGRAM, NODE_SHARED};
use crate::name::{ClusterName, NodeName};
use crate::node::running;
use crate::record::ClusterRecord;

/// Loads archives on every node that is on.
pub fn load_images(clusters: &Path, name: &ClusterName, archives: &[PathBuf]) -> Result<(), Error> {
    let layout = ClusterLayout::new(clusters, name);
    let record = ClusterRecord::read(&layout)?;
    let mut on = Vec::new();
    for node in &record.nodes {
        if running(&layout.node(&node.name))?.is_some() {
            on.push(&node.name);
        }
    }
    let results = std::thread::scope(|scope| {
        let load = |node| {
            let layout = &layout;
            scope.spawn(move || archives.iter().try_for_each(|archive| load(clusters, layout, node, archive)))
        };
        let threads: Vec<_> = on.into_iter().map(load).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    results.into_iter().try_for_each(|result| match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn load(clusters: &Path, layout: &ClusterLayout, node: &NodeName, archive: &Path) -> Result<(), Error> {
    let name = archive.file_name().unwrap_or_default();
    let shared = layout.node(node).shared().file(name);
    // A link costs nothing; it takes a copy where the archive is on another file system.
    let _ = fs::remove_file(&shared);
    let placed = fs::hard_link(archive, &shared).or_else(|_| fs::copy(archive, &shared).map(drop));
    placed.map_err(|source| Error::File { action: "read", path: archive.to_owned(), source })?;
    let inside = Path::new(NODE_SHARED).join(name);
    let mut command = Command::new("/proc/self/exe");
    command.args(["cluster", "exec", "--clusters-dir"]).arg(clusters).arg(node.to_string());
    command.args(["--", NODE_PROGRAM, "image", "load"]).arg(inside).stdin(Stdio::null());
    let output = command.output();
    let _ = fs::remove_file(&shared);
    let shown = || format!("kedge image load {} on {node}", archive.display());
    let output = output.map_err(|source| Error::Spawn { command: shown(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command { command: shown(), output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
