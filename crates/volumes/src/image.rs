//! Mounting what an image holds: a view that a containerd has made of it.
//!
//! It asks nobody for views. Invariant: what is mounted is read-only and runs nothing, as upstream's runtimes mount it.

use std::io;
use std::path::{Path, PathBuf};

use kedge_cri::SnapshotMount;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::mount_table::is_mount_point;

/// Mounts a view at a place, unless something is mounted there already.
pub fn mount_image(target: &Path, mounts: &[SnapshotMount]) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    if is_mount_point(target) {
        return Ok(());
    }
    for view in mounts {
        one(target, view)?;
    }
    Ok(())
}

fn one(target: &Path, view: &SnapshotMount) -> io::Result<()> {
    const LOCKED: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NOEXEC);
    let plan = plan(view);
    if plan.flags.contains(MsFlags::MS_BIND) {
        mount(Some(view.source.as_str()), target, None::<&str>, plan.flags, None::<&str>)?;
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | LOCKED;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>)?;
        return Ok(());
    }
    let (kind, source, target) = (view.kind.clone(), view.source.clone(), target.to_owned());
    let work = move || -> io::Result<()> {
        if let Some(directory) = &plan.directory {
            // The kernel takes a page of options at most, so layers are named from where they all lie. The working
            // directory becomes this thread's own.
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(directory)?;
        }
        mount(Some(source.as_str()), &target, Some(kind.as_str()), plan.flags | LOCKED, Some(plan.data.as_str()))?;
        Ok(())
    };
    let done = std::thread::spawn(work).join();
    done.unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

/// How a mount is done.
#[derive(Debug, PartialEq)]
struct Plan {
    flags: MsFlags,
    data: String,
    /// Where relative names in the data begin.
    directory: Option<PathBuf>,
}

fn plan(view: &SnapshotMount) -> Plan {
    let mut plan = Plan { flags: MsFlags::empty(), data: String::new(), directory: None };
    let mut data = Vec::new();
    for option in &view.options {
        match option.as_str() {
            "bind" => plan.flags |= MsFlags::MS_BIND,
            "rbind" => plan.flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" => plan.flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            "nodev" => plan.flags |= MsFlags::MS_NODEV,
            "nosuid" => plan.flags |= MsFlags::MS_NOSUID,
            "noexec" => plan.flags |= MsFlags::MS_NOEXEC,
            other => match other.strip_prefix("lowerdir=").and_then(shorten) {
                Some((directory, layers)) => {
                    data.push(format!("lowerdir={layers}"));
                    plan.directory = Some(directory);
                }
                None => data.push(other.to_owned()),
            },
        }
    }
    plan.data = data.join(",");
    plan
}

/// The directory that all layers lie in, and the layers as seen from there; `None` for what is not below one directory.
fn shorten(layers: &str) -> Option<(PathBuf, String)> {
    let layers: Vec<&Path> = layers.split(':').map(Path::new).collect();
    // `snapshots/7/fs`: the parent differs between layers, and its parent does not.
    let directory = layers.first()?.parent()?.parent()?;
    let short: Option<Vec<String>> = layers
        .iter()
        .map(|layer| Some(layer.strip_prefix(directory).ok()?.to_str()?.to_owned()).filter(|name| !name.is_empty()))
        .collect();
    directory.is_absolute().then_some((directory.to_owned(), short?.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(kind: &str, options: &[&str]) -> SnapshotMount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        SnapshotMount { kind: kind.to_owned(), source: kind.to_owned(), target: String::new(), options }
    }

    #[test]
    fn options_become_flags_and_short_data() {
        let bind = plan(&view("bind", &["ro", "rbind"]));
        assert_eq!(bind.flags, MsFlags::MS_RDONLY | MsFlags::MS_BIND | MsFlags::MS_REC);
        assert_eq!((bind.data.as_str(), bind.directory), ("", None));
        let overlay = plan(&view("overlay", &["index=off", "lowerdir=/r/snapshots/12/fs:/r/snapshots/3/fs"]));
        assert_eq!((overlay.flags, overlay.data.as_str()), (MsFlags::empty(), "index=off,lowerdir=12/fs:3/fs"));
        assert_eq!(overlay.directory.as_deref(), Some(Path::new("/r/snapshots")));
        let apart = plan(&view("overlay", &["lowerdir=/a/1/fs:/b/2/fs"]));
        assert_eq!((apart.data.as_str(), apart.directory), ("lowerdir=/a/1/fs:/b/2/fs", None));
    }

    #[test]
    fn a_view_is_read_only_and_mounted_once() {
        if kedge_skip::skipped_without_root("a_view_is_read_only_and_mounted_once") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        for layer in ["1", "2"] {
            std::fs::create_dir_all(directory.path().join(layer).join("fs")).unwrap();
            std::fs::write(directory.path().join(layer).join("fs").join(layer), layer).unwrap();
        }
        let layer = |number: &str| directory.path().join(number).join("fs").to_string_lossy().into_owned();
        let mut bind = view("bind", &["ro", "rbind"]);
        bind.source = layer("1");
        let overlay = view("overlay", &[&format!("lowerdir={}:{}", layer("2"), layer("1"))]);
        for (name, view, files) in [("bound", bind, vec!["1"]), ("laid", overlay, vec!["1", "2"])] {
            let target = directory.path().join(name);
            match mount_image(&target, std::slice::from_ref(&view)) {
                Err(error) if name == "laid" && error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) => {
                    kedge_skip::skip(
                        "a_view_is_read_only_and_mounted_once",
                        "overlays cannot be laid over this directory",
                    );
                    continue;
                }
                result => result.unwrap(),
            }
            mount_image(&target, &[view]).unwrap();
            for file in files {
                assert_eq!(std::fs::read_to_string(target.join(file)).unwrap(), file);
            }
            let refused = std::fs::write(target.join("new"), "x").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            let points = crate::mount_table::mount_points();
            assert_eq!(points.iter().filter(|point| **point == target).count(), 1);
            nix::mount::umount(&target).unwrap();
        }
    }
}
