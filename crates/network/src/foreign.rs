//! CNI configurations of other networks, such as Flannel's or Calico's. Where somebody installed one, pods join that
//! network, and Kedge keeps out of its way.
//!
//! Distributions bring configurations too, for tools that make containers outside of any cluster. Their names have high
//! numbers, so that a cluster's network comes first; those of networks for clusters have ten or less, or none.
//!
//! Pure, but for reading the folder.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cni::CNI_FILE_NAME;

/// The highest number of a file that somebody installed for the pods of a cluster.
const LAST_NUMBER: u32 = 10;

/// A configuration that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A network for pods.
    Network {
        /// The file's name.
        file: String,
        /// The network's.
        network: String,
    },
    /// Nobody can read it, but the container runtime takes it before ours.
    Broken {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The first foreign configuration in the order of the container runtime, which is that of the names.
pub(crate) fn find_foreign(folder: &Path) -> Option<Foreign> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| is_for_clusters(name)).collect();
    names.sort_unstable();
    names.into_iter().find_map(|file| {
        let text = fs::read_to_string(folder.join(&file)).ok()?;
        read(file, &text)
    })
}

fn is_for_clusters(name: &str) -> bool {
    let is_config = [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    let is_early = digits.parse::<u32>().map_or(digits.is_empty(), |number| number <= LAST_NUMBER);
    is_config && is_early && !name.starts_with('.') && name != CNI_FILE_NAME
}

fn read(file: String, text: &str) -> Option<Foreign> {
    let broken =
        |problem: String, file: String| (file.as_str() < CNI_FILE_NAME).then_some(Foreign::Broken { file, problem });
    let config: Value = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(error) => return broken(error.to_string(), file),
    };
    let plugins: Vec<&Value> = match config.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.iter().collect(),
        None => vec![&config],
    };
    let mut types = plugins.iter().map(|plugin| plugin.get("type").and_then(Value::as_str));
    if plugins.is_empty() || types.clone().any(|kind| kind.is_none()) {
        return broken("it names no plugin".to_owned(), file);
    }
    if types.all(|kind| kind == Some("loopback")) {
        return None;
    }
    let network = config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Foreign::Network { file, network })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_for_clusters_are_told_from_others() {
        let bridge = r#"{"cniVersion": "0.4.0", "name": "other", "plugins": [{"type": "bridge"}]}"#;
        let check = |file: &str, text: &str, expected: &str| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(file), text).unwrap();
            let shown = match find_foreign(folder.path()) {
                None => "nothing".to_owned(),
                Some(Foreign::Network { file, network }) => format!("{network} of {file}"),
                Some(Foreign::Broken { file, problem }) => format!("{file}: {problem}"),
            };
            assert_eq!(shown, expected, "{file}");
        };
        check("10-flannel.conflist", bridge, "other of 10-flannel.conflist");
        check("10-kindnet.conflist", bridge, "other of 10-kindnet.conflist");
        check("cilium.conf", r#"{"name": "c", "type": "cilium-cni"}"#, "c of cilium.conf");
        check("10-kedge.conflist", bridge, "nothing");
        check("87-podman-bridge.conflist", bridge, "nothing");
        check("100-crio-bridge.conflist", bridge, "nothing");
        check("10-flannel.conflist.bak", bridge, "nothing");
        check("05-loopback.conf", r#"{"name": "lo", "type": "loopback"}"#, "nothing");
        check("05-broken.conf", "{", "05-broken.conf: EOF while parsing an object at line 1 column 1");
        check("05-empty.conflist", r#"{"name": "x", "plugins": []}"#, "05-empty.conflist: it names no plugin");
        check("10-zebra.conflist", "{", "nothing");
    }

    #[test]
    fn the_first_by_name_counts() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [("10-flannel.conflist", "b"), ("05-cilium.conflist", "a")] {
            let text = format!(r#"{{"name": "{name}", "plugins": [{{"type": "x"}}]}}"#);
            fs::write(folder.path().join(file), text).unwrap();
        }
        let expected = Foreign::Network { file: "05-cilium.conflist".to_owned(), network: "a".to_owned() };
        assert_eq!(find_foreign(folder.path()), Some(expected));
    }
}
