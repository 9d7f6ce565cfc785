//! The segment that joins the nodes: a bridge in a network namespace of its own, which has no other interface.
//!
//! Invariant: nothing is changed in the machine's own network namespace; whatever happens on the segment stays there.

use std::path::PathBuf;

use crate::addresses::{GATEWAY, PREFIX, PREFIX_V6};
use crate::command::{ip, run};
use crate::error::Error;
use crate::name::{ClusterName, NodeName};
use crate::record::NodeRecord;

const BRIDGE: &str = "switch";

/// The network namespace as a file.
pub(crate) fn path(cluster: &ClusterName) -> PathBuf {
    PathBuf::from("/run/netns").join(cluster.namespace())
}

/// Makes the segment where it is not there.
pub(crate) fn ensure(cluster: &ClusterName) -> Result<(), Error> {
    let name = cluster.namespace();
    if !path(cluster).exists() {
        ip(&format!("netns add {name}"))?;
    }
    ip(&format!("-n {name} link set lo up"))?;
    if ip(&format!("-n {name} link show {BRIDGE}")).is_err() {
        ip(&format!("-n {name} link add {BRIDGE} type bridge"))?;
        ip(&format!("-n {name} address add {GATEWAY}/{PREFIX} dev {BRIDGE}"))?;
    }
    ip(&format!("-n {name} link set {BRIDGE} up"))?;
    Ok(())
}

/// Plugs a node in whose first process is `pid`.
pub(crate) fn attach(node: &NodeRecord, pid: i32) -> Result<(), Error> {
    let (switch, port) = (node.name.cluster().namespace(), port(&node.name));
    // Of the node's life before: the kernel takes a namespace down some time after its last process.
    let _ = ip(&format!("-n {switch} link delete {port}"));
    ip(&format!("-n {switch} link add {port} type veth peer name eth0 netns {pid}"))?;
    ip(&format!("-n {switch} link set {port} master {BRIDGE} up"))?;
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let address = format!("{}/{PREFIX}", node.address);
    for words in
        [&["link", "set", "lo", "up"][..], &["address", "add", &address, "dev", "eth0"], &["link", "set", "eth0", "up"]]
    {
        run("nsenter", &[&[&namespace, "ip"][..], words].concat())?;
    }
    if let Some(second) = node.second_address {
        // The segment is the cluster's own: nobody else has the address, and nobody need wait for that to be found out.
        let second = format!("{second}/{PREFIX_V6}");
        run("nsenter", &[&namespace, "ip", "address", "add", &second, "dev", "eth0", "nodad"])?;
    }
    Ok(())
}

/// Pulls a node's cable, or plugs it in again.
pub(crate) fn set_link(node: &NodeName, is_up: bool) -> Result<(), Error> {
    let state = if is_up { "up" } else { "down" };
    ip(&format!("-n {} link set {} {state}", node.cluster().namespace(), port(node)))?;
    Ok(())
}

/// Whether a node's cable is in.
pub(crate) fn has_link(node: &NodeName) -> bool {
    let shown = ip(&format!("-n {} -o link show {}", node.cluster().namespace(), port(node)));
    shown.is_ok_and(|text| is_up(&text))
}

/// Removes the segment with everything on it.
pub(crate) fn remove(cluster: &ClusterName) -> Result<(), Error> {
    if path(cluster).exists() {
        ip(&format!("netns delete {}", cluster.namespace()))?;
    }
    Ok(())
}

fn port(node: &NodeName) -> String {
    format!("port{}", node.number())
}

/// Whether `ip -o link show` shows an interface that is switched on.
fn is_up(shown: &str) -> bool {
    let flags = shown.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(flags, _)| flags);
    flags.is_some_and(|flags| flags.split(',').any(|flag| flag == "UP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_up_by_its_flags() {
        assert!(is_up("3: port1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master switch state UP"));
        assert!(is_up("3: port1@if2: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 state LOWERLAYERDOWN"));
        assert!(!is_up("3: port1@if2: <BROADCAST,MULTICAST> mtu 1500 qdisc noqueue master switch state DOWN"));
        assert!(!is_up(""));
    }
}
