//! Kernel switches under /proc/sys, with a memory of what they were before we changed them.
//!
//! Invariant: the value found first is the one that is restored, also when several processes after one another set it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a switch could not be read, set or remembered.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The kernel has no such switch: a module is not loaded.
    #[error("the kernel has no {name}")]
    Absent {
        /// The switch, such as `net.ipv4.ip_forward`.
        name: String,
    },
    /// The switch can't be read or written.
    #[error("{name} can't be set to {value}")]
    Denied {
        /// The switch.
        name: String,
        /// What it should be.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// The file of former values can't be read or written.
    #[error("the former values of kernel switches can't be kept in {}", file.display())]
    Memory {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The switches, as this thread's network namespace has them.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
    memory: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Former(BTreeMap<String, String>);

impl Sysctls {
    /// Keeps former values in `memory`, a file that this crate writes and removes.
    pub fn new(memory: impl Into<PathBuf>) -> Self {
        Self::under("/proc/sys", memory)
    }

    /// The same over another tree than /proc/sys.
    pub fn under(root: impl Into<PathBuf>, memory: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), memory: memory.into() }
    }

    /// The value of a switch, such as `net.ipv4.ip_forward`. A dot inside a name (an interface `eth0.5`) is a slash, as
    /// sysctl(8) has it.
    pub fn get(&self, name: &str) -> Result<String, SysctlError> {
        match fs::read_to_string(self.path(name)) {
            Ok(value) => Ok(value.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SysctlError::Absent { name: name.to_owned() }),
            Err(source) => Err(SysctlError::Denied { name: name.to_owned(), value: String::new(), source }),
        }
    }

    /// Sets a switch if it is not set already; says whether it changed anything.
    pub fn ensure(&self, name: &str, value: &str) -> Result<bool, SysctlError> {
        let found = self.get(name)?;
        if found == value {
            return Ok(false);
        }
        self.remember(name, &found)?;
        fs::write(self.path(name), value).map_err(|source| SysctlError::Denied {
            name: name.to_owned(),
            value: value.to_owned(),
            source,
        })?;
        tracing::info!(sysctl = name, from = found, to = value, "set");
        Ok(true)
    }

    /// Gives every changed switch its former value and forgets them. Switches that no longer exist (those of an
    /// interface that is gone) are passed over.
    pub fn restore(&self) -> Result<(), SysctlError> {
        for (name, value) in self.former()?.0 {
            match fs::write(self.path(&name), &value) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SysctlError::Denied { name, value, source });
                }
                _ => tracing::info!(sysctl = name, to = value, "restored"),
            }
        }
        match fs::remove_file(&self.memory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.memory_error(source)),
            _ => Ok(()),
        }
    }

    fn remember(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        let mut former = self.former()?;
        if former.0.contains_key(name) {
            return Ok(());
        }
        former.0.insert(name.to_owned(), value.to_owned());
        let text = serde_json::to_vec_pretty(&former).expect("a map of strings is JSON");
        write_atomically(&self.memory, &text).map_err(|source| self.memory_error(source))
    }

    fn former(&self) -> Result<Former, SysctlError> {
        match fs::read(&self.memory) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| self.memory_error(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Former::default()),
            Err(source) => Err(self.memory_error(source)),
        }
    }

    fn memory_error(&self, source: io::Error) -> SysctlError {
        SysctlError::Memory { file: self.memory.clone(), source }
    }

    fn path(&self, name: &str) -> PathBuf {
        let swapped: String = name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect();
        self.root.join(swapped)
    }
}

fn write_atomically(file: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_found_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let forward = folder.path().join("net/ipv4/ip_forward");
        fs::create_dir_all(forward.parent().unwrap()).unwrap();
        fs::write(&forward, "0\n").unwrap();
        let memory = folder.path().join("state/sysctls.json");
        let sysctls = || Sysctls::under(folder.path(), &memory);
        assert!(sysctls().ensure("net.ipv4.ip_forward", "1").unwrap());
        assert!(!sysctls().ensure("net.ipv4.ip_forward", "1").unwrap());
        assert!(sysctls().ensure("net.ipv4.ip_forward", "2").unwrap());
        assert_eq!(sysctls().get("net.ipv4.ip_forward").unwrap(), "2");
        sysctls().restore().unwrap();
        assert_eq!(fs::read_to_string(&forward).unwrap(), "0");
        assert!(!memory.exists());
        sysctls().restore().unwrap();
    }

    #[test]
    fn an_absent_switch_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::under(folder.path(), folder.path().join("m"));
        let error = sysctls.ensure("net.bridge.bridge-nf-call-iptables", "1").unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no net.bridge.bridge-nf-call-iptables");
        assert_eq!(
            sysctls.path("net.ipv4.conf.eth0/5.rp_filter"),
            folder.path().join("net/ipv4/conf/eth0.5/rp_filter")
        );
    }
}
