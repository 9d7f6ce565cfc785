//! etcd on the way to another version: never to an older one, and not without a copy of its data.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::version::ClusterVersion;
use crate::cluster_configuration::LocalEtcd;
use crate::host::HostLayout;
use crate::manifests::manifest_command;

/// The data of the machine's member.
pub(super) struct EtcdData {
    dir: PathBuf,
}

impl EtcdData {
    /// Where the manifest of this machine says.
    pub(super) fn of(layout: &HostLayout) -> Self {
        let command = manifest_command(&layout.manifest("etcd")).unwrap_or_default();
        let named = command.iter().find_map(|word| word.strip_prefix("--data-dir="));
        Self { dir: layout.at(named.map_or_else(|| LocalEtcd::default().data_dir, str::to_owned)) }
    }

    /// Copies it; what is half there where that fails is removed.
    pub(super) fn copy_to(&self, to: &Path) -> io::Result<()> {
        copy_dir(&self.dir, to).inspect_err(|_| {
            // It says nothing that the data itself does not say.
            let _ = std::fs::remove_dir_all(to);
        })
    }

    /// Puts a copy back in place of what is there, which is kept beside it until that is done.
    pub(super) fn restore_from(&self, copy: &Path) -> io::Result<()> {
        let name = |end: &str| self.dir.join(end);
        let (member, aside, new) = (name("member"), name("member.failed"), name("member.restored"));
        copy_dir(&copy.join("member"), &new)?;
        if aside.exists() {
            std::fs::remove_dir_all(&aside)?;
        }
        std::fs::rename(&member, &aside)?;
        std::fs::rename(&new, &member)
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_dir(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), &target)?),
        }
    }
    Ok(())
}

/// Refuses an etcd that is older than the one that runs. Versions that can't be read are taken as they are.
pub(super) fn ensure_etcd_is_newer(current: &Value, wanted: &Value) -> Result<(), String> {
    let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    let version = |image: &str| ClusterVersion::of_image(image).map(|version| version.kubernetes);
    let (from, to) = (image(current), image(wanted));
    if from == to {
        return Ok(());
    }
    match (version(&from), version(&to)) {
        (Some(old), Some(new)) if new < old => Err(format!(
            "the desired etcd version \"{new}\" is older than the currently installed \"{old}\". Skipping etcd upgrade"
        )),
        (_, None) => Err(format!("this machine has no etcd for an image ({to}). Skipping etcd upgrade")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn etcd_never_gets_older() {
        let pod = |image: &str| json!({"spec": {"containers": [{"image": image}]}});
        let check = |from: &str, to: &str, is_fine: bool| {
            assert_eq!(ensure_etcd_is_newer(&pod(from), &pod(to)).is_ok(), is_fine, "{from} to {to}");
        };
        check("localhost/etcd:v3.4.23", "localhost/etcd:v3.5.1", true);
        check("localhost/etcd:v3.5.1", "localhost/etcd:v3.4.23", false);
        check("localhost/etcd:v3.5.1", "localhost/etcd:v3.5.1", true);
        check("localhost/etcd:v3.5.1", "localhost/etcd:vnone", false);
        check("registry.example/etcd:custom", "localhost/etcd:v3.4.23", true);
    }

    #[test]
    fn data_is_copied_and_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let data = EtcdData { dir: dir.path().join("etcd") };
        let wal = data.dir.join("member/wal");
        std::fs::create_dir_all(&wal).unwrap();
        std::fs::write(wal.join("0.wal"), "old").unwrap();
        let copy = dir.path().join("copy");
        data.copy_to(&copy).unwrap();
        std::fs::write(wal.join("0.wal"), "new").unwrap();
        std::fs::write(wal.join("1.wal"), "new").unwrap();
        data.restore_from(&copy).unwrap();
        assert_eq!(std::fs::read_to_string(wal.join("0.wal")).unwrap(), "old");
        assert!(!wal.join("1.wal").exists());
        assert!(data.dir.join("member.failed/wal/1.wal").exists());
        assert!(data.copy_to(&dir.path().join("copy/member/wal/0.wal/x")).is_err());
    }
}
