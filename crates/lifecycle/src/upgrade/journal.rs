//! What an upgrade of a machine's static pods has done so far, on disk, so that one that was interrupted is finished, or
//! taken back, by the next.
//!
//! Invariant: the backup holds the manifests from before the first try, however often the upgrade is begun again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kedge_pki::{PkiError, write_private};
use serde::{Deserialize, Serialize};

use crate::host::{HostLayout, KUBERNETES_DIR};

const FILE: &str = "upgrade.json";

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Journal {
    /// The version that is brought.
    pub(super) version: String,
    /// Where the manifests from before are.
    pub(super) backup: PathBuf,
    /// Where etcd's data from before is, where it was copied.
    pub(super) etcd_backup: Option<PathBuf>,
    /// Components whose manifests were, or were about to be, replaced; in this order.
    pub(super) touched: Vec<String>,
    /// The uids of their pods from before.
    pub(super) uids: BTreeMap<String, String>,
}

impl Journal {
    /// That of an interrupted upgrade.
    pub(super) fn read(layout: &HostLayout) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(layout.state().join(FILE)).ok()?).ok()
    }

    /// A new one.
    pub(super) fn begin(layout: &HostLayout, version: &str, now: Timestamp) -> Result<Self, PkiError> {
        let backup = timestamped(layout, "kubeadm-backup-manifests", now);
        let journal =
            Self { version: version.to_owned(), backup, etcd_backup: None, touched: Vec::new(), uids: BTreeMap::new() };
        journal.write(layout)?;
        Ok(journal)
    }

    /// Keeps it.
    pub(super) fn write(&self, layout: &HostLayout) -> Result<(), PkiError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_private(&layout.state().join(FILE), text.as_bytes())
    }

    /// Notes a component before its manifest is replaced, and keeps a copy of the old one.
    pub(super) fn touch(
        &mut self,
        layout: &HostLayout,
        component: &str,
        old: &str,
        uid: Option<&str>,
    ) -> Result<(), PkiError> {
        if !self.copy_of(component).exists() {
            write_private(&self.copy_of(component), old.as_bytes())?;
        }
        if !self.touched.iter().any(|touched| touched == component) {
            self.touched.push(component.to_owned());
            self.uids.extend(uid.map(|uid| (component.to_owned(), uid.to_owned())));
        }
        self.write(layout)
    }

    /// The uid that a component's pod must not have any more, once its manifest has been replaced.
    pub(super) fn uid_before(&self, component: &str, manifest: &str) -> Option<&str> {
        let is_replaced = std::fs::read_to_string(self.copy_of(component)).is_ok_and(|copy| copy != manifest);
        self.uids.get(component).filter(|_| is_replaced).map(String::as_str)
    }

    /// Where a component's manifest from before is.
    pub(super) fn copy_of(&self, component: &str) -> PathBuf {
        self.backup.join(format!("{component}.yaml"))
    }

    /// The upgrade has come to its end, a good or a bad one. The backup stays.
    pub(super) fn end(layout: &HostLayout) -> std::io::Result<()> {
        match std::fs::remove_file(layout.state().join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A directory with a time in its name below `/etc/kubernetes/tmp`, as kubeadm has them.
pub(super) fn timestamped(layout: &HostLayout, name: &str, now: Timestamp) -> PathBuf {
    let time = now.strftime("%Y-%m-%d-%H-%M-%S");
    layout.at(Path::new(KUBERNETES_DIR).join("tmp")).join(format!("{name}-{time}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backup_is_from_before_the_first_try() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let mut first = Journal::begin(&layout, "v1", Timestamp::UNIX_EPOCH).unwrap();
        assert!(first.backup.ends_with("etc/kubernetes/tmp/kubeadm-backup-manifests-1970-01-01-00-00-00"));
        first.touch(&layout, "kube-scheduler", "old", Some("7")).unwrap();
        let mut again = Journal::read(&layout).unwrap();
        assert_eq!(again, first);
        again.touch(&layout, "kube-scheduler", "new", Some("8")).unwrap();
        assert_eq!(again.touched, ["kube-scheduler"]);
        assert_eq!(std::fs::read_to_string(again.copy_of("kube-scheduler")).unwrap(), "old");
        assert_eq!(again.uid_before("kube-scheduler", "old"), None);
        assert_eq!(again.uid_before("kube-scheduler", "new"), Some("7"));
        Journal::end(&layout).unwrap();
        Journal::end(&layout).unwrap();
        assert_eq!(Journal::read(&layout), None);
    }
}
