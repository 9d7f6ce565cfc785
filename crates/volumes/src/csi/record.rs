//! `vol_data.json`: what the node agent notes about a CSI volume before a driver works on it.
//!
//! The file and its fields are upstream's, so either kubelet can take down what the other has set up. Invariant: a record is
//! on disk before the driver's call and goes only after the driver has undone it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "vol_data.json";

/// What is to be undone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeRecord {
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub(crate) spec_volume: String,
    pub(crate) volume_handle: String,
    pub(crate) driver_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node_name: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub(crate) attachment_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) volume_lifecycle_mode: String,
}

impl VolumeRecord {
    /// Whether both are of the same volume.
    pub(crate) fn same_volume(&self, other: &Self) -> bool {
        self.volume_handle == other.volume_handle && self.driver_name == other.driver_name
    }
}

/// Writes a record, whole.
pub(crate) fn save(directory: &Path, record: &VolumeRecord) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let text = serde_json::to_vec(record)?;
    let draft = directory.join(format!("{FILE}.tmp"));
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, directory.join(FILE))
}

/// The record in a directory, if there is one.
pub(crate) fn load(directory: &Path) -> io::Result<Option<VolumeRecord>> {
    match std::fs::read(directory.join(FILE)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a record and the directories that were made for it, which must be empty.
pub(crate) fn remove(directory: &Path, inner: &Path) -> io::Result<()> {
    absent_is_fine(std::fs::remove_dir(inner))?;
    absent_is_fine(std::fs::remove_file(directory.join(FILE)))?;
    absent_is_fine(std::fs::remove_dir(directory))
}

/// Every directory below `parent` that has a record.
pub(crate) fn all(parent: &Path) -> Vec<(PathBuf, VolumeRecord)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), load(&entry.path()).ok()??))).collect()
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_upstreams_fields_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pv");
        assert_eq!(load(&place).unwrap(), None);
        let record = VolumeRecord {
            spec_volume: "pv".to_owned(),
            volume_handle: "h".to_owned(),
            driver_name: "d.example".to_owned(),
            node_name: "n".to_owned(),
            attachment_id: "csi-1".to_owned(),
            volume_lifecycle_mode: "Persistent".to_owned(),
        };
        save(&place, &record).unwrap();
        assert_eq!(
            std::fs::read_to_string(place.join(FILE)).unwrap(),
            r#"{"specVolID":"pv","volumeHandle":"h","driverName":"d.example","nodeName":"n","attachmentID":"csi-1","volumeLifecycleMode":"Persistent"}"#
        );
        assert_eq!(all(directory.path()), [(place.clone(), record)]);
        std::fs::create_dir(place.join("mount")).unwrap();
        std::fs::write(place.join("mount/precious"), "x").unwrap();
        assert!(remove(&place, &place.join("mount")).is_err(), "what is in a volume is never removed");
        assert!(load(&place).unwrap().is_some());
        std::fs::remove_file(place.join("mount/precious")).unwrap();
        remove(&place, &place.join("mount")).unwrap();
        assert!(!place.exists());
        remove(&place, &place.join("mount")).unwrap();
    }
}
