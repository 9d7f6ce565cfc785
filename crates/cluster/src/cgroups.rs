//! The cgroups of nodes: one for each node in every hierarchy, which is the node's root.
//!
//! Invariant: a node's processes are below its own cgroup, so that kubelets of one machine do not see each other's pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::name::{ClusterName, NodeName};

const PARENT: &str = "kedge-clusters";
/// Where a node's own processes are: a cgroup of version 2 that gives controllers to children has no processes itself.
const SYSTEM: &str = "system";
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Whether it is version 2.
    pub(crate) is_v2: bool,
    /// What it is mounted with: controllers or a name.
    pub(crate) options: String,
}

/// The hierarchies of this machine.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Reads the hierarchies below `/sys/fs/cgroup` out of the text of `/proc/self/mountinfo`.
fn parse(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(mount), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        if !matches!(kind, "cgroup" | "cgroup2") || !mount.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let named = options.split(',').filter(|option| {
            let is_controller = option.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            option.starts_with("name=") || (is_controller && !["rw", "ro", "xattr", "noprefix"].contains(option))
        });
        let hierarchy = Hierarchy {
            mount: PathBuf::from(mount),
            is_v2: kind == "cgroup2",
            options: named.filter(|option| *option != "clone_children").collect::<Vec<_>>().join(","),
        };
        // A later mount at the same place hides the one before.
        found.retain(|other| other.mount != hierarchy.mount);
        found.push(hierarchy);
    }
    found
}

/// Makes the cgroups of a node and moves this process in.
pub(crate) fn enter(node: &NodeName) -> Result<(), Error> {
    for hierarchy in hierarchies() {
        let mut directory = hierarchy.mount.clone();
        for part in [PARENT, node.cluster().as_str(), &node.to_string()] {
            directory.push(part);
            make(&hierarchy, &directory)?;
        }
        join(&directory)?;
    }
    Ok(())
}

/// Moves this process from a node's cgroup to the one for the node's own processes.
pub(crate) fn enter_system(node: &NodeName) -> Result<(), Error> {
    for hierarchy in hierarchies() {
        let directory = of_node(&hierarchy, node).join(SYSTEM);
        make_plain(&hierarchy, &directory)?;
        join(&directory)?;
    }
    Ok(())
}

/// Removes the cgroups of a node; false while one is still in use.
pub(crate) fn remove_node(node: &NodeName) -> bool {
    hierarchies().iter().all(|hierarchy| remove_tree(&of_node(hierarchy, node)))
}

/// Removes the cgroups of a cluster; false while one is still in use.
pub(crate) fn remove_cluster(cluster: &ClusterName) -> bool {
    let mut is_gone = true;
    for hierarchy in hierarchies() {
        let parent = hierarchy.mount.join(PARENT);
        is_gone &= remove_tree(&parent.join(cluster.as_str()));
        // Other clusters may be in it.
        let _ = fs::remove_dir(parent);
    }
    is_gone
}

fn of_node(hierarchy: &Hierarchy, node: &NodeName) -> PathBuf {
    hierarchy.mount.join(PARENT).join(node.cluster().as_str()).join(node.to_string())
}

/// Makes a cgroup that gives its children what its parent has.
fn make(hierarchy: &Hierarchy, directory: &Path) -> Result<(), Error> {
    if hierarchy.is_v2 {
        delegate(directory.parent().unwrap_or(directory));
    }
    make_plain(hierarchy, directory)
}

fn make_plain(hierarchy: &Hierarchy, directory: &Path) -> Result<(), Error> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::File { action: "make the cgroup", path: directory.to_owned(), source: error });
        }
        _ => {}
    }
    if hierarchy.options.split(',').any(|option| option == "cpuset") {
        // A new cgroup of version 1 has no processors, and takes no process before it has.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let parent = directory.parent().unwrap_or(directory).join(file);
            let value =
                fs::read_to_string(&parent).map_err(|source| Error::File { action: "read", path: parent, source })?;
            let own = directory.join(file);
            if fs::read_to_string(&own).is_ok_and(|own| own.trim().is_empty()) {
                fs::write(&own, value.trim()).map_err(|source| Error::File { action: "write", path: own, source })?;
            }
        }
    }
    Ok(())
}

/// Hands every controller that a cgroup has to its children; one that it lacks is not handed on.
fn delegate(directory: &Path) {
    let has = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in CONTROLLERS.iter().filter(|controller| has.split_whitespace().any(|has| has == **controller)) {
        if let Err(error) = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, directory = %directory.display(), "a controller can't be handed on");
        }
    }
}

fn join(directory: &Path) -> Result<(), Error> {
    let file = directory.join("cgroup.procs");
    fs::write(&file, "0").map_err(|source| Error::File { action: "enter the cgroup", path: file, source })
}

/// Removes a cgroup with its children, the deepest first.
fn remove_tree(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return true };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_with_what_they_are_mounted_with() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
            50 31 0:38 / /mnt/other rw,relatime - cgroup2 cgroup2 rw\n";
        let shown: Vec<String> = parse(table)
            .iter()
            .map(|found| format!("{} {} {}", found.mount.display(), found.is_v2, found.options))
            .collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/cpu,cpuacct false cpu,cpuacct",
                "/sys/fs/cgroup/systemd false name=systemd",
                "/sys/fs/cgroup/unified true nsdelegate",
            ]
        );
    }
}
