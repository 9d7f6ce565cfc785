//! File systems under the files of a cluster: room, inodes, kind, and whether they take writes.

use std::path::{Path, PathBuf};

use kedge_diagnosis::Fact;
use serde_json::{Value, json};

use crate::machine::file_systems;
use crate::node::reading::Reading;

/// Mounts of pods are many and tell nothing here.
const PASSED_OVER: &[&str] =
    &["/var/lib/kubelet/pods/", "/run/containerd/io.containerd", "/run/netns", "/proc/", "/sys/", "/dev/"];
const MOST_MOUNTS: usize = 200;

pub(super) fn read(paths: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for disk in file_systems(paths) {
        reading.add(format!("df {}", disk.path), Fact::FileSystem(disk));
    }
    match std::fs::read_to_string("/proc/self/mounts") {
        Ok(text) => reading.document("mounts", "/proc/self/mounts", Ok(mounts(&text))),
        Err(error) => reading.miss("mounts", error),
    }
    reading
}

fn mounts(text: &str) -> Value {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (source, path, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let path = path.replace("\\040", " ");
        let below = format!("{path}/");
        let is_one_of_many = PASSED_OVER.iter().any(|prefix| below.starts_with(prefix));
        let read_only = options.split(',').any(|option| option == "ro");
        (!is_one_of_many).then(|| json!({"source": source, "path": path, "kind": kind, "readOnly": read_only}))
    };
    text.lines().filter_map(mount).take(MOST_MOUNTS).collect()
}

/// Where a runtime keeps its files, in addition to the well-known places.
pub(super) fn of_runtime(configuration: &Value) -> Vec<PathBuf> {
    let paths = ["root", "state"].into_iter().filter_map(|field| configuration[field].as_str());
    paths.map(Path::new).filter(|path| path.is_absolute()).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_but_for_those_of_pods() {
        let text = "/dev/sda1 / ext4 ro,relatime 0 0\ntmpfs /run tmpfs rw,nosuid 0 0\nproc /proc proc rw 0 0\n\
            tmpfs /var/lib/kubelet/pods/x/volumes/y tmpfs rw 0 0\n";
        assert_eq!(
            mounts(text),
            json!([
                {"source": "/dev/sda1", "path": "/", "kind": "ext4", "readOnly": true},
                {"source": "tmpfs", "path": "/run", "kind": "tmpfs", "readOnly": false},
            ])
        );
        assert_eq!(of_runtime(&json!({"root": "/data/containerd", "state": "x"})), [PathBuf::from("/data/containerd")]);
    }
}
