//! The machine that is mended: reading what is there, and doing operations.
//!
//! Invariant: a file is written beside its place and moved there, with a name that the kubelet passes over.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kedge_lifecycle::HostLayout;
use serde_json::Value;

use crate::operation::Operation;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file.
    #[error("cannot {action} {path}")]
    File {
        /// As in `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something beyond the files of the machine.
    #[error("{what} cannot be changed: {why}")]
    Reach {
        /// An object's path.
        what: String,
        /// Why.
        why: String,
    },
    /// A program ended with an error.
    #[error("{command} failed: {why}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        why: String,
    },
}

/// What a repair reaches beyond files and programs of a machine.
pub trait Access: Send + Sync {
    /// The API server's address, by which a cluster is told from others.
    fn server(&self) -> &str;
    /// An object by its path; nothing where it is not there.
    ///
    /// # Errors
    /// Why the API does not give it.
    fn get(&self, path: &str) -> Result<Option<Value>, String>;
    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// Why the API refuses it.
    fn patch(&self, path: &str, patch: &Value) -> Result<(), String>;
    /// Starts the kubelet of this machine, or stops it, without a service manager.
    ///
    /// # Errors
    /// Why it is not so.
    fn keep_kubelet(&self, runs: bool) -> Result<(), String>;
}

/// A machine, or a directory that stands for one; and a cluster, where one can be reached.
#[derive(Clone, Default)]
pub struct Host {
    layout: HostLayout,
    access: Option<Arc<dyn Access>>,
    /// Only objects of the API are changed: the machine is another than the one with the cause.
    is_elsewhere: bool,
}

impl Host {
    /// The machine with its places.
    pub fn new(layout: HostLayout) -> Self {
        Self { layout, access: None, is_elsewhere: false }
    }

    /// The same with a way to a cluster.
    pub fn with_access(self, access: Arc<dyn Access>) -> Self {
        Self { access: Some(access), ..self }
    }

    /// The same where the machine itself is not to be changed.
    pub fn elsewhere(self) -> Self {
        Self { is_elsewhere: true, ..self }
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    pub(crate) fn access(&self) -> Option<&dyn Access> {
        self.access.as_deref()
    }

    /// Where Kedge remembers things about the machine.
    pub fn state(&self) -> PathBuf {
        self.layout.state()
    }

    /// Where `init`, `join` and `upgrade` keep a copy of each manifest that they write.
    pub(crate) fn intended_manifest(&self, file: &str) -> PathBuf {
        self.layout.intended_manifests().join(file)
    }

    /// Whether services are systemd's.
    pub(crate) fn has_service_manager(&self) -> bool {
        self.layout.at("/run/systemd/system").is_dir()
    }

    pub(crate) fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.layout.at(path))
    }

    pub(crate) fn metadata(&self, path: &str) -> io::Result<fs::Metadata> {
        fs::symlink_metadata(self.layout.at(path))
    }

    pub(crate) fn is_empty_directory(&self, path: &str) -> bool {
        fs::read_dir(self.layout.at(path)).is_ok_and(|mut entries| entries.next().is_none())
    }

    pub(crate) fn setting(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.setting_path(name)).ok().map(|value| value.trim().to_owned())
    }

    fn setting_path(&self, name: &str) -> PathBuf {
        self.layout.at("/proc/sys").join(name.replace('.', "/"))
    }

    pub(crate) fn has_module(&self, name: &str) -> bool {
        self.layout.at("/sys/module").join(name).exists()
    }

    /// What the service manager answers of a unit: `is-active`, `is-enabled`.
    pub(crate) fn ask_unit(&self, question: &str, name: &str) -> bool {
        Command::new("systemctl").args(["--quiet", question, name]).status().is_ok_and(|status| status.success())
    }

    /// Does one operation.
    ///
    /// # Errors
    /// Where the machine refuses it; nothing is half done then.
    pub fn execute(&self, operation: &Operation) -> Result<(), HostError> {
        match operation {
            Operation::WriteFile { path, content, mode } => self.write(path, content, *mode),
            Operation::RemoveFile { path } => self.gone("remove", path, |path| fs::remove_file(path)),
            Operation::RemoveDirectory { path } => self.gone("remove", path, |path| fs::remove_dir(path)),
            Operation::MakeDirectory { path, mode } => {
                let made = fs::DirBuilder::new().mode(*mode).create(self.layout.at(path));
                let made =
                    made.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) });
                made.map_err(|source| self.failed("make", path, source))
            }
            Operation::SetSetting { name, value } => {
                let path = self.setting_path(name);
                fs::write(&path, value).map_err(|source| HostError::File { action: "write", path, source })
            }
            Operation::LoadModule { name } => run("modprobe", &[name]),
            Operation::UnloadModule { name } => {
                // In use, or built in by now: that it stays harms nobody.
                let _ = run("modprobe", &["--remove", name]);
                Ok(())
            }
            Operation::Unit { verb, name } => run("systemctl", &[verb.word(), name]),
            Operation::Patch { server, path, patch } => self.reach(path, |access| match access.server() == server {
                true => access.patch(path, patch),
                false => Err(format!("it is an object of {server}, and this is {}", access.server())),
            }),
            Operation::StartKubelet => self.reach("the kubelet", |access| access.keep_kubelet(true)),
            Operation::StopKubelet => self.reach("the kubelet", |access| access.keep_kubelet(false)),
        }
    }

    fn reach(&self, what: &str, change: impl Fn(&dyn Access) -> Result<(), String>) -> Result<(), HostError> {
        let changed = self.access().ok_or_else(|| "there is no way to it".to_owned()).and_then(change);
        changed.map_err(|why| HostError::Reach { what: what.to_owned(), why })
    }

    fn write(&self, path: &str, content: &str, mode: u32) -> Result<(), HostError> {
        let place = self.layout.at(path);
        let beside = beside(&place);
        let written = (|| {
            if let Some(directory) = place.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &place)
        })();
        written.map_err(|source| {
            // Half of a file beside helps nobody.
            let _ = fs::remove_file(&beside);
            self.failed("write", path, source)
        })
    }

    fn gone(
        &self,
        action: &'static str,
        path: &str,
        remove: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<(), HostError> {
        match remove(&self.layout.at(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed(action, path, error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, path: &str, source: io::Error) -> HostError {
        HostError::File { action, path: self.layout.at(path), source }
    }
}

/// A name beside a file that begins with a dot, which the kubelet passes over.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.kedge"))
}

fn run(program: &str, arguments: &[&str]) -> Result<(), HostError> {
    let failed = |why: String| HostError::Command { command: format!("{program} {}", arguments.join(" ")), why };
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
