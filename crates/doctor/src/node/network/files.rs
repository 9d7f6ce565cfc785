//! Files of the pod network and of what volumes need: CNI configurations, resolvers, what Kedge knows of its peers, the
//! initiator of iSCSI, maps of the multipath daemon, and the kernel's count of connections that it could not keep.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::node::reading::Reading;

const CNI: &str = "/etc/cni/net.d";
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";
/// These files are small; what is larger is something else.
const MOST_BYTES: u64 = 1 << 20;
/// More configurations than this are no configuration.
const MOST_FILES: usize = 32;

pub(super) fn read(data_dir: &Path) -> Reading {
    let mut reading = Reading::default();
    configurations(Path::new(CNI), &mut reading);
    for path in RESOLVERS {
        if let Some(text) = text(Path::new(path), &mut reading) {
            reading.document("resolv.conf", path, Ok(Value::String(text)));
        }
    }
    let peers = data_dir.join("network/reachability.json");
    if let Some(view) = text(&peers, &mut reading) {
        let content = serde_json::from_str(&view).map_err(|error| error.to_string());
        reading.document("reachability", &peers.display().to_string(), content);
    }
    if let Some(name) = text(Path::new(INITIATOR), &mut reading).as_deref().and_then(initiator) {
        reading.document("iscsi", INITIATOR, Ok(json!({"initiatorName": name})));
    }
    maps(Path::new("/sys/block"), &mut reading);
    let table = fs::read_to_string("/proc/net/stat/nf_conntrack");
    if let Some(count) = table.ok().as_deref().and_then(insert_failed) {
        reading.measure("conntrack -S", "conntrack_insert_failed", "machine", count, None);
    }
    reading
}

fn configurations(directory: &Path, reading: &mut Reading) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return reading.miss(directory.display().to_string(), error),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_one =
        |path: &Path| path.extension().is_some_and(|kind| kind == "conf" || kind == "conflist" || kind == "json");
    for path in paths.into_iter().filter(|path| is_one(path)).take(MOST_FILES) {
        if let Some(text) = text(&path, reading) {
            let content = serde_json::from_str(&text).map(without_secrets).map_err(|error| error.to_string());
            reading.document("cni", &path.display().to_string(), content);
        }
    }
}

/// A configuration without what it may know of passwords and tokens.
fn without_secrets(value: Value) -> Value {
    const SECRET: [&str; 4] = ["token", "password", "key", "secret"];
    match value {
        Value::Object(fields) => {
            let is_open = |name: &String| !SECRET.iter().any(|word| name.to_ascii_lowercase().contains(word));
            let kept = fields.into_iter().filter(|(name, _)| is_open(name));
            kept.map(|(name, value)| (name, without_secrets(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        value => value,
    }
}

/// A file's text; nothing where there is none.
fn text(path: &Path, reading: &mut Reading) -> Option<String> {
    let shown = path.display().to_string();
    match fs::metadata(path) {
        Ok(about) if about.len() > MOST_BYTES => {
            reading.miss(shown, format!("it has {} bytes", about.len()));
            return None;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        _ => {}
    }
    fs::read_to_string(path).map_err(|error| reading.miss(shown, error)).ok()
}

fn initiator(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("InitiatorName=")).map(str::trim)
}

/// Devices that are made of others, with their makers' names for them.
fn maps(directory: &Path, reading: &mut Reading) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let read = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut maps = Vec::new();
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("dm-")) {
        let slaves = fs::read_dir(entry.path().join("slaves")).into_iter().flatten().flatten();
        let devices: Vec<String> = slaves.map(|slave| slave.file_name().to_string_lossy().into_owned()).collect();
        let own = |file: &str| read(&entry.path().join("dm").join(file));
        maps.push(json!({"name": own("name"), "uuid": own("uuid"), "devices": devices}));
    }
    if !maps.is_empty() {
        reading.document("multipath", &directory.display().to_string(), Ok(json!({"maps": maps})));
    }
}

/// How many connections could not be kept since the machine started, over all processors.
fn insert_failed(table: &str) -> Option<f64> {
    let mut lines = table.lines();
    let column = lines.next()?.split_whitespace().position(|name| name == "insert_failed")?;
    let counts = lines.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok());
    Some(counts.sum::<u64>() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::Fact;

    #[test]
    fn configurations_are_read_without_secrets_and_others_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("it is written");
        write(
            "10-calico.conflist",
            r#"{"name": "k8s", "plugins": [{"type": "calico", "policy": {"k8s_auth_token": "hunter2"}}]}"#,
        );
        write("broken.conf", "{");
        write("calico-kubeconfig", "token: hunter2");
        let mut reading = Reading::default();
        configurations(directory.path(), &mut reading);
        let documents: Vec<_> = reading
            .facts()
            .filter_map(|(_, fact)| match fact {
                Fact::Document { content, .. } => Some(content.clone()),
                _ => None,
            })
            .collect();
        assert!(documents.len() == 2 && documents[1].is_err(), "{documents:?}");
        assert_eq!(documents[0], Ok(json!({"name": "k8s", "plugins": [{"type": "calico", "policy": {}}]})));
    }

    #[test]
    fn names_maps_and_counts_are_read() {
        assert_eq!(initiator("## x\nInitiatorName=iqn.1993-08.org.debian:01:a\n"), Some("iqn.1993-08.org.debian:01:a"));
        let table = "entries  searched insert insert_failed drop\n00000010  00000000 00000000 0000000a 00000000\n00000010  00000000 00000000 00000006 00000000\n";
        assert_eq!(insert_failed(table), Some(16.0));
        let directory = tempfile::tempdir().expect("a directory");
        let map = directory.path().join("dm-0");
        fs::create_dir_all(map.join("dm")).expect("it is made");
        fs::create_dir_all(map.join("slaves/sdb")).expect("it is made");
        fs::write(map.join("dm/uuid"), "mpath-3600\n").expect("it is written");
        let mut reading = Reading::default();
        maps(directory.path(), &mut reading);
        assert_eq!(reading.facts().count(), 1);
    }
}
