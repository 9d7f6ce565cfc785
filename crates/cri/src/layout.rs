//! The files of a private containerd: where they are, and their making and removal.
//!
//! It starts and signals nothing. Invariant: the socket's path fits the kernel's limit, and no file is written through a
//! half-written state (a configuration is replaced by rename).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::containerd::{PrivateContainerdError, file};
use crate::host;

/// `sockaddr_un` holds 108 bytes with the closing zero.
const MAX_SOCKET_PATH: usize = 107;
/// containerd listens for its shims beside its socket, with this added to the name.
const TTRPC_SUFFIX: &str = ".ttrpc";

/// The paths below one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    socket: PathBuf,
}

impl Layout {
    pub(crate) fn new(data_dir: &Path) -> io::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let socket = socket_path(&data_dir);
        Ok(Self { data_dir, socket })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.data_dir.join("root")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.data_dir.join("state")
    }

    pub(crate) fn opt(&self) -> PathBuf {
        self.data_dir.join("opt")
    }

    pub(crate) fn registries(&self) -> PathBuf {
        self.data_dir.join("certs.d")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.data_dir.join("config.toml")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.data_dir.join("containerd.log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.data_dir.join("containerd.pid")
    }

    fn snapshotter_file(&self) -> PathBuf {
        self.data_dir.join("snapshotter")
    }

    fn boot_file(&self) -> PathBuf {
        self.data_dir.join("boot-id")
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<(), PrivateContainerdError> {
        let socket_dir = self.socket.parent().expect("a socket path has a parent").to_owned();
        for dir in [self.data_dir.clone(), self.root(), self.state(), self.registries(), socket_dir] {
            fs::create_dir_all(&dir).map_err(|source| file("create", &dir, source))?;
        }
        Ok(())
    }

    /// Removes the state of an earlier boot. containerd expects its state directory on a file system that a reboot
    /// empties; ours lies on disk, so that the same is done here.
    pub(crate) fn forget_other_boot(&self) -> Result<(), PrivateContainerdError> {
        let boot_file = self.boot_file();
        let now = host::boot_id();
        let then = fs::read_to_string(&boot_file).unwrap_or_default();
        if then == now {
            return Ok(());
        }
        let state = self.state();
        if !then.is_empty() && host::mounts_below(&state).is_empty() {
            fs::remove_dir_all(&state).map_err(|source| file("empty", &state, source))?;
            fs::create_dir_all(&state).map_err(|source| file("create", &state, source))?;
        }
        fs::write(&boot_file, now).map_err(|source| file("write", &boot_file, source))
    }

    pub(crate) fn recorded_snapshotter(&self) -> Option<String> {
        fs::read_to_string(self.snapshotter_file()).ok().filter(|name| !name.is_empty())
    }

    /// The snapshotter, decided once for a data directory: images unpacked by one are unknown to the other.
    pub(crate) fn snapshotter(&self) -> Result<String, PrivateContainerdError> {
        if let Some(name) = self.recorded_snapshotter() {
            return Ok(name);
        }
        let name = if host::overlay_works(&self.root()) { "overlayfs" } else { "native" };
        let path = self.snapshotter_file();
        fs::write(&path, name).map_err(|source| file("write", &path, source))?;
        Ok(name.to_owned())
    }

    /// Writes the configuration; whether it differs from the one that was there.
    pub(crate) fn write_config(&self, text: &str) -> Result<bool, PrivateContainerdError> {
        let path = self.config_file();
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let new = path.with_extension("toml.new");
        fs::write(&new, text).map_err(|source| file("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| file("write", &path, source))?;
        Ok(true)
    }

    pub(crate) fn write_pid(&self, pid: u32) -> Result<(), PrivateContainerdError> {
        let path = self.pid_file();
        fs::write(&path, pid.to_string()).map_err(|source| file("write", &path, source))
    }

    /// Removes what tells of a running containerd. Nothing depends on it, so that a failure is nobody's business.
    pub(crate) fn remove_runtime_files(&self) {
        for path in [self.pid_file(), self.socket.clone(), ttrpc(&self.socket)] {
            let _ = fs::remove_file(path);
        }
        if let Some(dir) = self.socket.parent().filter(|dir| *dir != self.data_dir) {
            let _ = fs::remove_dir(dir);
        }
    }

    pub(crate) fn remove_all(&self) -> io::Result<()> {
        if let Some(mount) = host::mounts_below(&self.data_dir).last() {
            let text = format!("{} is still mounted; remove its sandbox first", mount.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        self.remove_runtime_files();
        match fs::remove_dir_all(&self.data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

fn ttrpc(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(TTRPC_SUFFIX);
    PathBuf::from(name)
}

/// The socket in the data directory, or in a short directory named after it where the path would be too long.
fn socket_path(data_dir: &Path) -> PathBuf {
    let socket = data_dir.join("containerd.sock");
    if ttrpc(&socket).as_os_str().len() <= MAX_SOCKET_PATH {
        return socket;
    }
    PathBuf::from(format!("/run/kedge-{:016x}", fnv(data_dir.as_os_str().as_encoded_bytes()))).join("containerd.sock")
}

/// FNV-1a. The standard library's hasher may change with the compiler, and then an upgrade would not find the socket.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_directories_get_a_short_socket() {
        let short = socket_path(Path::new("/var/lib/kedge/containerd"));
        assert_eq!(short, Path::new("/var/lib/kedge/containerd/containerd.sock"));
        let long = Path::new("/").join("d".repeat(120));
        let socket = socket_path(&long);
        assert!(socket.starts_with("/run") && ttrpc(&socket).as_os_str().len() <= MAX_SOCKET_PATH, "{socket:?}");
        assert_eq!(socket, socket_path(&long));
        assert_ne!(socket, socket_path(&long.join("e")));
    }

    #[test]
    fn a_configuration_that_stays_is_not_a_change() {
        let dir = tempfile::tempdir().expect("temp dir");
        let layout = Layout::new(dir.path()).expect("layout");
        assert!(layout.write_config("a").expect("first"));
        assert!(!layout.write_config("a").expect("same"));
        assert!(layout.write_config("b").expect("other"));
    }

    #[test]
    fn state_of_another_boot_is_forgotten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let layout = Layout::new(dir.path()).expect("layout");
        layout.create().expect("create");
        layout.forget_other_boot().expect("first boot");
        let stale = layout.state().join("task");
        fs::write(&stale, "").expect("write");
        layout.forget_other_boot().expect("same boot");
        assert!(stale.exists());
        fs::write(layout.boot_file(), "another boot").expect("write");
        layout.forget_other_boot().expect("next boot");
        assert!(!stale.exists() && layout.state().exists());
    }
}
