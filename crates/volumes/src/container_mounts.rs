//! From a container's volume mounts to the runtime's: sub-paths, propagation, `/etc/hosts` and the termination message.
//!
//! Invariant: a sub-path never leads out of its volume, whatever symbolic links the pod has put there.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use kedge_cri::v1;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;
use parking_lot::Mutex;

use crate::mount_table::is_mount_point;
use crate::pod;
use crate::set_up::{MountedVolumes, Volumes};

/// What a container's mounts are made of.
pub struct ContainerVolumes<'a> {
    /// The volumes of all pods.
    pub all: &'a Volumes,
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// The pod's volumes.
    pub volumes: &'a MountedVolumes,
    /// The images that this container sees, by the volume's name.
    pub images: &'a BTreeMap<String, ImageSource>,
    /// Whether the runtime makes mounts read-only with everything below them.
    pub recursive_read_only: bool,
    /// Replaces the references in `subPathExpr`, or names the one that means nothing.
    pub expand: &'a dyn Fn(&str) -> Result<String, String>,
}

/// An image that is a volume.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// The runtime mounts it.
    Runtime(v1::ImageSpec),
    /// It is mounted here, read-only.
    Directory(PathBuf),
}

/// Mounts of a container whose sub-paths are not yet bound.
pub struct PlannedMounts {
    mounts: Vec<(v1::Mount, Option<SubPath>)>,
    ended: Arc<Mutex<HashSet<String>>>,
    pod_uid: String,
}

/// A part of a volume, and where it is to be bound.
#[derive(Debug, PartialEq)]
struct SubPath {
    root: PathBuf,
    path: String,
    target: PathBuf,
    /// A part that is not there is made.
    makes: bool,
    /// What fails where it can't be bound.
    what: String,
}

/// What the mounts of a container's volumes are to be. Looks at no volume.
pub fn plan_container_mounts(input: &ContainerVolumes<'_>) -> Result<PlannedMounts, String> {
    let mounts = input.container.volume_mounts.iter().flatten();
    let mounts = mounts.enumerate().map(|(index, mount)| one(input, index, mount));
    Ok(PlannedMounts {
        mounts: mounts.collect::<Result<_, _>>()?,
        ended: input.all.ended.clone(),
        pod_uid: pod::uid(input.pod).to_owned(),
    })
}

impl PlannedMounts {
    /// Whether [`PlannedMounts::bind`] looks into volumes, which may hang with their servers.
    pub fn may_hang(&self) -> bool {
        self.mounts.iter().any(|(_, sub_path)| sub_path.is_some())
    }

    /// What fails where binding takes too long.
    pub fn hanging(&self) -> String {
        let first = self.mounts.iter().find_map(|(_, sub_path)| sub_path.as_ref());
        let what = first.map(|sub_path| sub_path.what.as_str()).unwrap_or_default();
        format!("{what}: context deadline exceeded")
    }

    /// Binds the sub-paths.
    pub fn bind(self) -> Result<Vec<v1::Mount>, String> {
        let Self { mounts, ended, pod_uid } = self;
        let bound = mounts.into_iter().map(|(mut mount, sub_path)| {
            if let Some(sub_path) = sub_path {
                let alive = || !ended.lock().contains(&pod_uid);
                let bound = bind_sub_path(&sub_path, alive);
                let bound = bound.map_err(|error| format!("{}: {error}", sub_path.what))?;
                mount.host_path = bound.to_string_lossy().into_owned();
            }
            Ok(mount)
        });
        bound.collect()
    }
}

/// The block devices of a container.
pub fn container_devices(container: &Container, volumes: &MountedVolumes) -> Result<Vec<v1::Device>, String> {
    let devices = container.volume_devices.iter().flatten();
    devices
        .map(|device| {
            let found = volumes.devices.get(&device.name);
            let found = found.ok_or_else(|| {
                format!("cannot find volume {:?} to pass into container {:?}", device.name, container.name)
            })?;
            Ok(v1::Device {
                container_path: absolute(&device.device_path),
                host_path: found.path.to_string_lossy().into_owned(),
                permissions: if found.read_only { "r" } else { "mrw" }.to_owned(),
            })
        })
        .collect()
}

fn one(
    input: &ContainerVolumes<'_>,
    index: usize,
    mount: &VolumeMount,
) -> Result<(v1::Mount, Option<SubPath>), String> {
    let ContainerVolumes { container, volumes, .. } = input;
    let recursive_read_only = recursive_read_only(mount, input.recursive_read_only)?;
    let sub_path = sub_path(mount, input.expand)?;
    let target = input.all.dirs().sub_path(pod::uid(input.pod), &mount.name, &container.name, index);
    if let Some(source) = input.images.get(&mount.name) {
        return Ok(image(mount, source, sub_path, target));
    }
    let root = volumes.paths.get(&mount.name);
    let root = root
        .ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name))?;
    let planned = v1::Mount {
        container_path: absolute(&mount.mount_path),
        host_path: root.to_string_lossy().into_owned(),
        readonly: mount.read_only.unwrap_or(false) || volumes.read_only.contains(&mount.name),
        recursive_read_only,
        propagation: propagation(mount),
        ..Default::default()
    };
    let sub_path = sub_path.map(|path| SubPath {
        root: root.clone(),
        path,
        target,
        makes: true,
        what: format!("failed to prepare subPath for volumeMount {:?} of container {:?}", mount.name, container.name),
    });
    Ok((planned, sub_path))
}

/// An image, or a part of it that must be there. What is mounted on the node already is read-only and stays so.
fn image(
    mount: &VolumeMount,
    source: &ImageSource,
    sub_path: Option<String>,
    target: PathBuf,
) -> (v1::Mount, Option<SubPath>) {
    let container_path = absolute(&mount.mount_path);
    let root = match source {
        ImageSource::Runtime(image) => {
            let (image, image_sub_path) = (Some(image.clone()), sub_path.unwrap_or_default());
            return (v1::Mount { container_path, image, image_sub_path, readonly: true, ..Default::default() }, None);
        }
        ImageSource::Directory(root) => root,
    };
    let host_path = root.to_string_lossy().into_owned();
    let sub_path = sub_path.map(|path| {
        let what = format!("failed to mount {path:?} of image volume {:?}", mount.name);
        SubPath { root: root.clone(), path, target, makes: false, what }
    });
    (v1::Mount { container_path, host_path, ..Default::default() }, sub_path)
}

/// Whether the mount is read-only with everything below it.
fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let name = &mount.name;
    let wrap = |cause: String| Err(format!("failed to resolve recursive read-only mode: {cause}"));
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => Ok(false),
        Some("IfPossible") => Ok(supported && mount.read_only.unwrap_or(false) && propagates_nothing(mount)),
        Some("Enabled") if !mount.read_only.unwrap_or(false) => {
            wrap(format!("volume {name:?} requested recursive read-only mode, but it is not read-only"))
        }
        Some("Enabled") if !propagates_nothing(mount) => {
            let propagation = mount.mount_propagation.as_deref().unwrap_or_default();
            wrap(format!(
                "volume {name:?} requested recursive read-only mode, but it is not compatible with propagation {propagation:?}"
            ))
        }
        Some("Enabled") if supported => Ok(true),
        Some("Enabled") => {
            wrap(format!("volume {name:?} requested recursive read-only mode, but it is not supported by the runtime"))
        }
        Some(other) => wrap(format!("unknown recursive read-only mode {other:?}")),
    }
}

/// What the status says about a mount's mode; nothing where it was not asked for anything read-only.
pub fn recursive_read_only_status(mount: &VolumeMount, supported: bool) -> Option<&'static str> {
    mount.read_only.filter(|read_only| *read_only)?;
    Some(match recursive_read_only(mount, supported) {
        Ok(true) => "Enabled",
        _ => "Disabled",
    })
}

fn propagates_nothing(mount: &VolumeMount) -> bool {
    matches!(mount.mount_propagation.as_deref(), None | Some("None"))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> i32 {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    propagation as i32
}

fn sub_path(mount: &VolumeMount, expand: &dyn Fn(&str) -> Result<String, String>) -> Result<Option<String>, String> {
    let path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => {
            expand(expression).map_err(|error| format!("failed to expand subPathExpr {expression:?}: {error}"))?
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if path.is_empty() {
        return Ok(None);
    }
    if Path::new(&path).is_absolute() {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    let inside = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path))
}

/// Opens the sub-path below the volume without ever leaving it, and binds what was opened to a place of the kubelet.
///
/// A volume that hung until its pod had ended is not bound any more: nobody would undo it.
fn bind_sub_path(wanted: &SubPath, alive: impl Fn() -> bool) -> io::Result<PathBuf> {
    let SubPath { root, path: sub_path, target, makes, .. } = wanted;
    let opened = match open_beneath(root, sub_path) {
        Err(error) if *makes && error.kind() == io::ErrorKind::NotFound => {
            make_beneath(root, sub_path)?;
            open_beneath(root, sub_path)?
        }
        result => result?,
    };
    let source = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), opened.as_raw_fd()));
    let is_directory = std::fs::metadata(&source)?.is_dir();
    if !alive() {
        return Err(io::Error::other("the pod has ended"));
    }
    if is_mount_point(target) {
        nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH)?;
    }
    if is_directory {
        std::fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if !target.exists() {
            File::create(target)?;
        }
    }
    nix::mount::mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_owned())
}

fn open_beneath(root: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let directory = File::open(root)?;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    Ok(openat2(&directory, sub_path, how)?)
}

/// Makes the missing directories, one by one, each opened beneath the volume. They get the volume's permissions.
fn make_beneath(root: &Path, sub_path: &str) -> io::Result<()> {
    let mode = std::fs::metadata(root)?.permissions().mode() & 0o777;
    let mut done = PathBuf::from(".");
    for part in Path::new(sub_path).components() {
        let parent = open_beneath(root, &done.to_string_lossy())?;
        let name: &Path = part.as_ref();
        match nix::sys::stat::mkdirat(&parent, name, nix::sys::stat::Mode::from_bits_truncate(mode)) {
            Ok(()) => {
                let made = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
                std::fs::set_permissions(made, std::fs::Permissions::from_mode(mode))?;
            }
            Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        done.push(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(sub_path: Option<&str>, expression: Option<&str>) -> VolumeMount {
        VolumeMount {
            sub_path: sub_path.map(str::to_owned),
            sub_path_expr: expression.map(str::to_owned),
            ..VolumeMount::default()
        }
    }

    #[test]
    fn sub_paths_are_relative_and_resolved() {
        let expand = |text: &str| match text.contains("$(NONE)") {
            true => Err("missing value for \"NONE\"".to_owned()),
            false => Ok(text.replace("$(POD)", "web-0")),
        };
        let check = |mount: VolumeMount, expected: Result<Option<&str>, ()>| {
            let got = sub_path(&mount, &expand);
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(|_| ()), expected);
        };
        check(mount(None, None), Ok(None));
        check(mount(Some("a/b"), None), Ok(Some("a/b")));
        check(mount(None, Some("$(POD)/x")), Ok(Some("web-0/x")));
        check(mount(None, Some("$(NONE)")), Err(()));
        check(mount(Some("../x"), None), Err(()));
        check(mount(Some("/x"), None), Err(()));
    }

    #[test]
    fn recursive_read_only_is_asked_for_and_shown() {
        let check = |mode: &str,
                     read_only: bool,
                     supported: bool,
                     expected: Result<bool, &str>,
                     status: Option<&str>| {
            let mount = VolumeMount {
                name: "v".to_owned(),
                read_only: Some(read_only),
                recursive_read_only: Some(mode.to_owned()),
                ..VolumeMount::default()
            };
            let expected = expected.map_err(|cause| {
                format!("failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, but it is {cause}")
            });
            assert_eq!(recursive_read_only(&mount, supported), expected, "{mode} {read_only} {supported}");
            assert_eq!(recursive_read_only_status(&mount, supported), status, "{mode} {read_only} {supported}");
        };
        check("Disabled", true, true, Ok(false), Some("Disabled"));
        check("IfPossible", true, true, Ok(true), Some("Enabled"));
        check("IfPossible", true, false, Ok(false), Some("Disabled"));
        check("Enabled", true, true, Ok(true), Some("Enabled"));
        check("Enabled", true, false, Err("not supported by the runtime"), Some("Disabled"));
        check("Enabled", false, true, Err("not read-only"), None);
    }

    #[test]
    fn images_are_the_runtimes_or_mounted_here() {
        let spec = v1::ImageSpec { image: "sha256:1".to_owned(), ..v1::ImageSpec::default() };
        let mount = VolumeMount { name: "v".to_owned(), mount_path: "/v".to_owned(), ..VolumeMount::default() };
        let made =
            |source: &ImageSource, part: Option<&str>| image(&mount, source, part.map(str::to_owned), "/t".into());
        let (theirs, none) = made(&ImageSource::Runtime(spec.clone()), Some("etc"));
        assert_eq!((theirs.image, theirs.image_sub_path.as_str(), none), (Some(spec), "etc", None));
        assert_eq!((theirs.host_path.as_str(), theirs.container_path.as_str(), theirs.readonly), ("", "/v", true));
        let directory = tempfile::tempdir().unwrap();
        let here = ImageSource::Directory(directory.path().to_owned());
        let (ours, none) = made(&here, None);
        assert_eq!((ours.image, ours.host_path.as_str(), none), (None, directory.path().to_str().unwrap(), None));
        let (_, part) = made(&here, Some("none"));
        let part = part.unwrap();
        assert_eq!(part.what, "failed to mount \"none\" of image volume \"v\"");
        // What an image does not have is not made.
        assert_eq!(bind_sub_path(&part, || true).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!directory.path().join("none").exists());
    }

    #[test]
    fn devices_are_passed_with_their_permissions() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }]
        }))
        .unwrap();
        assert_eq!(
            container_devices(&container, &MountedVolumes::default()),
            Err("cannot find volume \"v\" to pass into container \"c\"".to_owned())
        );
        let device = crate::BlockDevice { path: "/l".into(), read_only: true };
        let volumes = MountedVolumes { devices: [("v".to_owned(), device)].into(), ..MountedVolumes::default() };
        let devices = container_devices(&container, &volumes).unwrap();
        assert_eq!((devices[0].host_path.as_str(), devices[0].permissions.as_str()), ("/l", "r"));
    }

    #[test]
    fn what_hung_until_the_pod_ended_is_not_bound() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volume");
        std::fs::create_dir_all(root.join("in")).unwrap();
        let target = directory.path().join("target");
        let part = SubPath { root, path: "in".to_owned(), target, makes: true, what: String::new() };
        let error = bind_sub_path(&part, || false).unwrap_err();
        assert_eq!(error.to_string(), "the pod has ended");
        assert!(!part.target.exists());
    }

    #[test]
    fn links_out_of_the_volume_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volume");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::fs::create_dir(root.join("in")).unwrap();
        std::os::unix::fs::symlink("in", root.join("link")).unwrap();
        assert!(open_beneath(&root, "out").is_err());
        assert!(open_beneath(&root, "up").is_err());
        assert!(open_beneath(&root, "link").is_ok());
        make_beneath(&root, "a/b").unwrap();
        assert!(root.join("a/b").is_dir());
        assert!(make_beneath(&root, "out/x").is_err());
    }
}
