//! The end of a cluster.
//!
//! Invariant: it needs nothing but the cluster's directory and name, in whatever state a crash left them, and can be done
//! again after a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_pki::remove_from_kubeconfig;
use nix::sys::signal::Signal;

use crate::cgroups;
use crate::error::Error;
use crate::gateway;
use crate::layout::ClusterLayout;
use crate::name::{ClusterName, NodeName};
use crate::node::{running, switch_off};
use crate::record::ClusterRecord;
use crate::switch;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends a cluster and removes everything of it. Returns whether there was one.
pub fn delete(clusters: &Path, name: &ClusterName) -> Result<bool, Error> {
    let layout = ClusterLayout::new(clusters, name);
    if !layout.root().exists() {
        return Ok(false);
    }
    for node in nodes(&layout) {
        // A damaged file is one that no node's start has finished with.
        if let Ok(Some(init)) = running(&layout.node(&node)) {
            switch_off(&node, init, Signal::SIGKILL)?;
        }
    }
    gateway::end(&layout)?;
    switch::remove(name)?;
    wait_for("the end of the nodes' cgroups", PATIENCE, || cgroups::remove_cluster(name))?;
    match ClusterRecord::read(&layout) {
        Ok(record) => {
            for path in &record.kubeconfigs {
                remove_from_kubeconfig(path, &name.context())?;
            }
        }
        // What to take out of which file is lost with the record; the rest goes nevertheless.
        Err(error) => tracing::warn!(%error, "contexts of the cluster may be left in kubeconfigs"),
    }
    remove_files(layout.root())?;
    Ok(true)
}

/// The nodes that have a directory.
fn nodes(layout: &ClusterLayout) -> Vec<NodeName> {
    let entries = fs::read_dir(layout.nodes()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Removes the files, unless something is mounted among them: that is not a cluster's.
fn remove_files(root: &Path) -> Result<(), Error> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    if let Some(path) = points.into_iter().find(|point| point.starts_with(root)) {
        return Err(Error::Mounted { path });
    }
    fs::remove_dir_all(root).map_err(|source| Error::File { action: "remove", path: root.to_owned(), source })
}
