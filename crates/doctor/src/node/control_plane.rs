//! What the parts of a control plane on this machine say of themselves, asked at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kedge_diagnosis::Evidence;
use tokio::task::spawn_blocking;

use crate::node::flags::Flags;
use crate::node::reading::Reading;
use crate::node::{NodePlaces, container_logs, etcd, kubelet, listeners, served};

const LOGS: &str = "/var/log/pods";

/// Reads logs of containers, configurations, what listens and what it serves. `evidence` has the manifests.
pub(super) async fn read(places: &NodePlaces, evidence: &Evidence) -> Vec<Reading> {
    let flags = Flags::of_manifests(evidence);
    let now: Timestamp = evidence.gathered;
    let logs = spawn_blocking(move || container_logs::read(Path::new(LOGS), now));
    let configurations = spawn_blocking(|| kubelet::read(Path::new("/")));
    let asked = servers(places.api_server, flags, places.data_dir.clone());
    let (logs, configurations, mut asked) = tokio::join!(logs, configurations, asked);
    for part in [logs, configurations] {
        asked.push(part.unwrap_or_else(|error| {
            let mut reading = Reading::default();
            reading.miss("a part of the control plane", error);
            reading
        }));
    }
    asked
}

async fn servers(api_server: Option<SocketAddr>, flags: Flags, data_dir: PathBuf) -> Vec<Reading> {
    let listening = spawn_blocking(|| listeners::read(Path::new("/proc"))).await;
    let (listeners, addresses) = listening.unwrap_or_else(|error| {
        let mut reading = Reading::default();
        reading.miss("listeners", error);
        (reading, BTreeSet::new())
    });
    let api = async {
        match api_server.or_else(|| flags.api_server()) {
            Some(address) => served::read_api_server(address).await,
            None => Reading::default(),
        }
    };
    let (certificates, etcd, api) =
        tokio::join!(served::read_certificates(&addresses, &flags, &data_dir), etcd::read(&addresses, &flags), api);
    vec![listeners, certificates, etcd, api]
}
