//! The CNI configuration of the node, and where the plugins are that it names.
//!
//! Invariant: the container runtime never sees half a file, as it takes a valid file as the sign that the network is
//! ready.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::{Config, Error};

/// The name of the file in the folder of CNI configurations.
pub const CNI_FILE_NAME: &str = "10-kedge.conflist";
/// The name of the network, and of host-local's folder.
pub const NETWORK_NAME: &str = "kedge";
/// The plugins that the configuration (and every container runtime: loopback) calls.
pub const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// The configuration for a node's pod ranges.
///
/// `mtu` is that of the pods' devices; the kernel's choice where absent.
pub fn plan_cni_config(config: &Config, pod_cidrs: &[IpNet], mtu: Option<u32>) -> String {
    let ranges: Vec<Value> = pod_cidrs.iter().map(|range| json!([{"subnet": range.trunc().to_string()}])).collect();
    let default_routes: Vec<Value> = pod_cidrs
        .iter()
        .map(|range| json!({"dst": if range.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" }}))
        .collect();
    let mut bridge = json!({
        "type": "bridge",
        "bridge": config.bridge,
        "isGateway": true,
        // The node's own rules do that, once for all pods instead of once for each.
        "ipMasq": false,
        // A pod must be able to reach itself through a Service.
        "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": config.ipam_dir, "ranges": ranges, "routes": default_routes},
    });
    if let Some(mtu) = mtu {
        bridge["mtu"] = mtu.into();
    }
    let list = json!({
        "cniVersion": "0.4.0",
        "name": NETWORK_NAME,
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}}],
    });
    let mut text = serde_json::to_string_pretty(&list).expect("it is JSON already");
    text.push('\n');
    text
}

/// The first folder that has all the plugins.
pub fn find_plugins(folders: &[PathBuf]) -> Result<PathBuf, Error> {
    let missing_in = |folder: &Path| -> Vec<String> {
        PLUGINS.iter().filter(|name| !folder.join(name).is_file()).map(|name| (*name).to_owned()).collect()
    };
    let mut fewest: Option<Vec<String>> = None;
    for folder in folders {
        let missing = missing_in(folder);
        if missing.is_empty() {
            return Ok(folder.clone());
        }
        if fewest.as_ref().is_none_or(|fewest| missing.len() < fewest.len()) {
            fewest = Some(missing);
        }
    }
    let missing = fewest.unwrap_or_else(|| PLUGINS.map(str::to_owned).to_vec());
    Err(Error::PluginsMissing { missing, looked_in: folders.to_vec() })
}

/// Writes the configuration if it is not there already; says whether it wrote.
pub(crate) fn ensure_file(folder: &Path, text: &str) -> Result<bool, Error> {
    let file = folder.join(CNI_FILE_NAME);
    if fs::read_to_string(&file).is_ok_and(|found| found == text) {
        return Ok(false);
    }
    write_atomically(&file, text).map_err(|source| Error::File { file, action: "written", source })?;
    Ok(true)
}

pub(crate) fn write_atomically(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or_else(|| io::Error::other("it is not in a folder"))?;
    fs::create_dir_all(folder)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Neither a dot file nor this ending is taken for a configuration.
    let temporary = folder.join(format!(".{name}.new"));
    fs::write(&temporary, text)?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_ranges() {
        let config = Config::new("n", Vec::new(), "/var/lib/kedge/network");
        let ranges = ["10.244.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let text = plan_cni_config(&config, &ranges, Some(1400));
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            list["plugins"][0]["ipam"]["ranges"],
            json!([[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:1::/64"}]])
        );
        assert_eq!(list["plugins"][0]["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert_eq!(list["plugins"][0]["mtu"], 1400);
        assert_eq!(list["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn missing_plugins_and_their_package_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("none"), folder.path().to_owned()];
        for name in ["bridge", "loopback", "portmap"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let error = find_plugins(&folders).unwrap_err().to_string();
        assert!(error.starts_with("no folder has the CNI plugins host-local: looked in "), "{error}");
        assert!(error.ends_with("install the Debian package containernetworking-plugins"), "{error}");
        fs::write(folder.path().join("host-local"), "").unwrap();
        assert_eq!(find_plugins(&folders).unwrap(), folder.path());
    }

    #[test]
    fn the_file_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("net.d");
        assert!(ensure_file(&folder, "{}").unwrap());
        assert!(!ensure_file(&folder, "{}").unwrap());
    }
}
