//! The file system that a node sees: the machine's programs and libraries, with everything that a node writes to kept
//! apart.
//!
//! Runs as the node's first process, in a mount namespace of its own. Invariant: nothing is made on the machine's file
//! systems but below the node's directory; every mount ends with the node's last process.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::cgroups::{Hierarchy, hierarchies};
use crate::error::Error;
use crate::layout::{NODE_DATA, NODE_PROGRAM, NODE_SHARED, NodeLayout};

const CGROUPS: &str = "/sys/fs/cgroup";
const RUN: &str = "/run";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What a node may write into without an own directory; the machine's content shines through.
const COVERED: [&str; 3] = ["/etc", "/opt", "/var/lib"];
/// What a node keeps over a restart: the directory in the node's files, and where the node finds it.
const KEPT: [(&str, &str); 7] = [
    ("data", NODE_DATA),
    ("shared", NODE_SHARED),
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("cni-config", "/etc/cni"),
    ("log", "/var/log"),
    ("tmp", "/tmp"),
];

/// The directories of a node that must be there before it starts.
pub(crate) fn directories(node: &NodeLayout) -> Vec<PathBuf> {
    KEPT.iter().map(|(name, _)| node.root().join(name)).collect()
}

/// Text files that every node has of its own in `/etc`.
pub(crate) struct EtcFiles {
    /// Its name.
    pub(crate) hostname: String,
    /// `/etc/hosts`.
    pub(crate) hosts: String,
}

/// Makes this process's mount namespace that of a node.
pub(crate) fn build(node: &NodeLayout, files: &EtcFiles) -> Result<(), Error> {
    set_propagation(MsFlags::MS_PRIVATE)?;
    // Through these the node's files and the program stay reachable whatever is covered.
    let root = fs::File::open(node.root()).map_err(file("open", node.root()))?;
    // By its path, as this process itself was started from the machine's mounts, which are not to be mounted here.
    let program = std::env::current_exe().map_err(file("find", Path::new("/proc/self/exe")))?;
    let program = fs::File::open(&program).map_err(file("open", &program))?;
    let old = hierarchies();
    let links = links_in(Path::new(CGROUPS));
    plain("proc", Path::new("/proc"), "proc", "")?;
    plain("sysfs", Path::new("/sys"), "sysfs", "")?;
    mount_cgroups(&old, &links)?;
    mount_run()?;
    let of = |open: &fs::File, rest: &str| PathBuf::from(format!("/proc/self/fd/{}/{rest}", open.as_raw_fd()));
    for (index, covered) in COVERED.iter().enumerate() {
        cover(Path::new(covered), index)?;
    }
    for (name, at) in KEPT {
        make_dir(Path::new(at))?;
        bind(&of(&root, name), Path::new(at))?;
    }
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).map_err(file("open up", Path::new("/tmp")))?;
    write(Path::new(NODE_PROGRAM), "")?;
    bind(&PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd())), Path::new(NODE_PROGRAM))?;
    plain("shm", Path::new("/dev/shm"), "tmpfs", "mode=1777")?;
    write_identity(files)?;
    // As a booted machine has it, so that volumes can be mounted in both directions.
    set_propagation(MsFlags::MS_SHARED)
}

fn mount_run() -> Result<(), Error> {
    plain("tmpfs", Path::new(RUN), "tmpfs", "mode=755")?;
    for directory in ["/run/lock", "/run/netns", "/run/kedge"] {
        make_dir(Path::new(directory))?;
    }
    Ok(())
}

/// The hierarchies as the node's cgroup namespace shows them: its own cgroup is the root of each.
fn mount_cgroups(old: &[Hierarchy], links: &[(PathBuf, PathBuf)]) -> Result<(), Error> {
    if !old.iter().any(|hierarchy| hierarchy.mount == Path::new(CGROUPS)) {
        plain("tmpfs", Path::new(CGROUPS), "tmpfs", "mode=755")?;
    }
    for hierarchy in old {
        make_dir(&hierarchy.mount)?;
        match hierarchy.is_v2 {
            true => plain("cgroup2", &hierarchy.mount, "cgroup2", "")?,
            false if hierarchy.options.starts_with("name=") => {
                plain("cgroup", &hierarchy.mount, "cgroup", &format!("none,{}", hierarchy.options))?;
            }
            false => plain("cgroup", &hierarchy.mount, "cgroup", &hierarchy.options)?,
        }
    }
    for (link, target) in links {
        symlink(target, link).map_err(file("link", link))?;
    }
    Ok(())
}

/// Distributions that mount two controllers together link to the directory by each name.
fn links_in(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect()
}

/// Lets the node write into a directory of the machine without the machine noticing.
fn cover(directory: &Path, index: usize) -> Result<(), Error> {
    if !directory.is_dir() {
        return Ok(());
    }
    let scratch = PathBuf::from(format!("/run/kedge/overlay/{index}"));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    let options = format!("lowerdir={},upperdir={},workdir={}", directory.display(), upper.display(), work.display());
    plain("overlay", directory, "overlay", &options)
}

/// What tells the node from the machine and from the other nodes.
fn write_identity(files: &EtcFiles) -> Result<(), Error> {
    // Each may be a link that leads out of the node's own files.
    for path in ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"] {
        let _ = fs::remove_file(path);
    }
    write(Path::new("/etc/hostname"), &format!("{}\n", files.hostname))?;
    write(Path::new("/etc/hosts"), &files.hosts)?;
    write(Path::new("/etc/resolv.conf"), "# The cluster's network leads nowhere else, so there is nobody to ask.\n")?;
    write(Path::new("/etc/machine-id"), &format!("{}\n", machine_id(&files.hostname)))?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(file("read", Path::new(BOOT_ID)))?;
    let own = Path::new("/run/kedge/boot_id");
    write(own, &boot_id)?;
    bind(own, Path::new(BOOT_ID))
}

/// The same for a node whenever it starts: two rounds of FNV-1a over its name, as 32 digits.
fn machine_id(name: &str) -> String {
    let hash =
        |seed: u64| name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15))
}

fn set_propagation(kind: MsFlags) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | kind, none)
        .map_err(|source| Error::Kernel { action: "change how mounts spread".to_owned(), source })
}

fn plain(source: &str, at: &Path, kind: &str, options: &str) -> Result<(), Error> {
    let options = (!options.is_empty()).then_some(options);
    mount(Some(source), at, Some(kind), MsFlags::empty(), options)
        .map_err(|source| Error::Kernel { action: format!("mount {kind} at {}", at.display()), source })
}

fn bind(source: &Path, at: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(Some(source), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(|error| Error::Kernel {
        action: format!("mount {} at {}", source.display(), at.display()),
        source: error,
    })
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(file("make", path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(file("write", path))
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_id_is_the_nodes_own() {
        let id = machine_id("demo-1");
        assert_eq!(id, machine_id("demo-1"));
        assert_ne!(id, machine_id("demo-2"));
        assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    }
}
