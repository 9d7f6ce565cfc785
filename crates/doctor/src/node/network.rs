//! The machine's network: interfaces, routes, policies of packet rules, files of the pod network, and whether peers answer.

mod files;
mod interfaces;
mod packet_rules;
mod peers;

use std::path::PathBuf;

use crate::node::reading::Reading;

/// Reads it all; probes come after what tells whom to probe.
pub(super) async fn read(data_dir: PathBuf, kubeconfigs: Vec<PathBuf>) -> Reading {
    let rules = tokio::spawn(packet_rules::read());
    let mut reading = files::read(&data_dir);
    let (own, tunnels) = interfaces::read().await;
    reading.append(own);
    reading.append(peers::read(&data_dir, &kubeconfigs, &tunnels).await);
    match rules.await {
        Ok(rules) => reading.append(rules),
        Err(error) => reading.miss("packet rules", error),
    }
    reading
}
