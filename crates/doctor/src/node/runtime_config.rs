//! containerd's configuration, without what it knows of registries' users.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::node::reading::Reading;

/// Fields whose values are nobody's business.
const SECRET: &[&str] = &["auth", "auths", "identitytoken", "password", "token", "username", "header", "headers"];
const MOST_BYTES: u64 = 1 << 20;

/// Reads it, and returns what was read.
pub(super) fn read(data_dir: &Path) -> (Reading, Vec<Value>) {
    let mut reading = Reading::default();
    let mut read = Vec::new();
    for path in [PathBuf::from("/etc/containerd/config.toml"), data_dir.join("containerd/config.toml")] {
        let Some(content) = content(&path) else { continue };
        read.extend(content.clone().ok());
        reading.document("containerd", &path.display().to_string(), content);
    }
    (reading, read)
}

fn content(path: &Path) -> Option<Result<Value, String>> {
    let size = match std::fs::metadata(path) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    if size > MOST_BYTES {
        return Some(Err(format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    Some(
        text.and_then(|text| toml::from_str::<Value>(&text).map_err(|error| error.message().to_owned()))
            .map(without_secrets),
    )
}

fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !SECRET.contains(&name.to_ascii_lowercase().as_str()));
            kept.map(|(name, value)| (name, without_secrets(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_read_without_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.toml");
        let text = "version = 2\ndisabled_plugins = [\"cri\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"x\".auth]\npassword = \"hunter2\"\n";
        std::fs::write(&path, text).expect("it is written");
        let read = content(&path).expect("it is there").expect("it is right");
        assert_eq!(read["disabled_plugins"], json!(["cri"]));
        assert!(!read.to_string().contains("hunter2"), "{read}");
        std::fs::write(&path, "version = [").expect("it is written");
        assert!(content(&path).is_some_and(|read| read.is_err()));
        assert!(content(&directory.path().join("none")).is_none());
    }
}
