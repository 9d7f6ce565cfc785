//! What can be checked only against the cluster that a machine joins: its clock, and whether it is a copy of another node.
//!
//! Invariant: what the cluster does not let a joining machine read is not checked, and stops nothing.

use std::path::Path;
use std::time::Duration;

use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kedge_bootstrap::DiscoveredCluster;
use kedge_client::Client;
use kube::Api;
use kube::api::ListParams;
use kube::client::Body;

use crate::Say;
use crate::checks::{CheckResult, ChecksFailed, judge};

const PATIENCE: Duration = Duration::from_secs(5);
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
const PORT: u16 = 6443;
/// Below this, clocks agree as well as one second of an HTTP header shows.
const TOLERATED: SignedDuration = SignedDuration::from_secs(1);
/// Certificates are good from five minutes before they are signed.
const TOO_FAR: SignedDuration = SignedDuration::from_mins(5);
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";
const MACHINE_ID: &str = "/etc/machine-id";

/// Checks a machine against the nodes that are there.
pub(crate) async fn check_peers(
    client: &Client,
    cluster: &DiscoveredCluster,
    node_name: &str,
    ignored: &[String],
    say: Say<'_>,
) -> Result<(), ChecksFailed> {
    let mut results: Vec<CheckResult> = clock_of(client, cluster.endpoint()).await.into_iter().collect();
    let nodes = match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => nodes.items,
        Err(error) => {
            tracing::debug!(%error, "the nodes that are there cannot be compared");
            Vec::new()
        }
    };
    for address in nodes.iter().filter_map(control_plane_address) {
        let peer = std::net::SocketAddr::new(address, PORT).to_string();
        let own = DiscoveredCluster { server: format!("https://{peer}"), ..cluster.clone() };
        if let Ok(client) = own.client(None) {
            results.extend(clock_of(&client, &peer).await);
        }
    }
    let own = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    results.extend(copies(node_name, &own(MACHINE_ID), &own(PRODUCT_UUID), &nodes));
    judge(results, ignored, say)
}

/// The address of a node with an API server.
fn control_plane_address(node: &Node) -> Option<std::net::IpAddr> {
    node.metadata.labels.as_ref()?.get(CONTROL_PLANE)?;
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}

/// How this machine's clock compares to an API server's, where that says what time it is.
async fn clock_of(client: &Client, peer: &str) -> Option<CheckResult> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let before = Timestamp::now();
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await.ok()?.ok()?;
    let after = Timestamp::now();
    let date = answer.headers().get("date")?.to_str().ok()?;
    let there = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(compare_clocks(peer, before, there, after))
}

/// `there` was read between `before` and `after`, and is a whole second.
fn compare_clocks(peer: &str, before: Timestamp, there: Timestamp, after: Timestamp) -> CheckResult {
    let result = CheckResult::new("Clock");
    let ahead = before.duration_since(there) - SignedDuration::from_secs(1);
    let behind = there.duration_since(after);
    let (off, direction) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if off <= TOLERATED {
        return result;
    }
    let text = format!(
        "the clock of this machine is {} s {direction} that of {peer}: certificates and tokens look expired or not yet \
         valid, and leases are lost; have it set (`timedatectl set-ntp true`, chrony)",
        off.as_secs()
    );
    if off > TOO_FAR { result.error(text) } else { result.warning(text) }
}

/// Nodes with this machine's identity.
fn copies(node_name: &str, machine_id: &str, product_uuid: &str, nodes: &[Node]) -> Vec<CheckResult> {
    let (machine_id, product_uuid) = (machine_id.trim(), product_uuid.trim());
    let mut results = Vec::new();
    for node in nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(node_name)) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) else { continue };
        if !machine_id.is_empty() && info.machine_id == machine_id {
            results.push(CheckResult::new("MachineID").warning(format!(
                "{MACHINE_ID} is that of the node {name}: this machine is a copy of it, and what tells machines apart by it \
                 takes both for one; make a new one with `rm {MACHINE_ID} && systemd-machine-id-setup`"
            )));
        }
        if !product_uuid.is_empty() && info.system_uuid.eq_ignore_ascii_case(product_uuid) {
            results.push(CheckResult::new("ProductUUID").warning(format!(
                "the product_uuid {product_uuid} is that of the node {name} too; give the virtual machine one of its own"
            )));
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_clock_that_is_off_is_said() {
        let at = |seconds: f64| Timestamp::from_nanosecond((seconds * 1e9) as i128).unwrap();
        let check = |before: f64, there: f64, after: f64, expected: &str| {
            let result = compare_clocks("lb:6443", at(before), at(there), at(after));
            let warned = result.warnings.iter().map(|text| format!("W {text}"));
            let said: String = warned.chain(result.errors.iter().map(|text| format!("E {text}"))).collect();
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{said}");
        };
        check(100.0, 100.0, 100.1, "");
        check(100.9, 100.0, 104.0, "");
        check(102.0, 100.0, 102.1, "");
        check(108.0, 100.0, 108.1, "W the clock of this machine is 7 s ahead of that of lb:6443");
        check(100.0, 109.0, 101.0, "W the clock of this machine is 8 s behind that of lb:6443");
        check(1000.0, 100.0, 1000.1, "E the clock of this machine is 899 s ahead");
        assert!(jiff::fmt::rfc2822::parse("Sat, 21 Nov 2026 13:40:55 GMT").is_ok());
    }

    #[test]
    fn a_copy_of_another_node_is_named() {
        let node = |name: &str, machine: &str, system: &str| -> Node {
            let info = json!({"machineID": machine, "systemUUID": system, "architecture": "", "bootID": "",
                "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                "operatingSystem": "", "osImage": ""});
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"nodeInfo": info}})).unwrap()
        };
        let nodes = [node("me", "a", "U"), node("n2", "a", "u"), node("n3", "c", "w")];
        let names = |machine: &str, product: &str| {
            let found = copies("me", machine, product, &nodes);
            found.iter().map(|result| format!("{}: {}", result.name, result.warnings[0])).collect::<Vec<_>>()
        };
        let found = names("a\n", "U\n");
        assert!(found[0].starts_with("MachineID: /etc/machine-id is that of the node n2"), "{found:?}");
        assert!(found[1].starts_with("ProductUUID: the product_uuid U is that of the node n2 too"), "{found:?}");
        assert_eq!((names("", "").len(), names("x", "y").len()), (0, 0));
    }
}
