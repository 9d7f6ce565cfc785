//! What a machine says, also without an API server: static pods and what they refer to, containers of the runtime,
//! certificates, logs, units, processes, settings of the kernel, disks, the clock, and whether the API server's port answers.

mod boots;
mod certificates;
mod clock;
mod container_logs;
mod containers;
mod control_plane;
mod disks;
mod etcd;
mod flags;
mod host;
mod https;
mod journal;
mod kernel_log;
mod kubelet;
mod limits;
mod listeners;
mod manifests;
mod network;
mod own_run;
mod processes;
mod program;
mod reading;
mod runtime_config;
mod served;
mod settings;
mod tail;
mod units;

pub(crate) use container_logs::is_the_clusters;

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use kedge_diagnosis::{Evidence, Fact, Item, Place, Unseen};

/// Where things are on this machine.
#[derive(Debug, Clone)]
pub struct NodePlaces {
    /// Its name, as its Node has it.
    pub name: String,
    /// Directories of static pods; those that are not there are passed over.
    pub manifests: Vec<PathBuf>,
    /// Directories of certificates, looked through to their depth.
    pub certificates: Vec<PathBuf>,
    /// Paths whose disks matter.
    pub disks: Vec<PathBuf>,
    /// Where Kedge keeps what is its own.
    pub data_dir: PathBuf,
    /// The runtime's socket; found among the well-known ones where absent.
    pub runtime: Option<String>,
    /// Where an API server should answer; found by the manifests where absent.
    pub api_server: Option<SocketAddr>,
}

impl NodePlaces {
    /// Those of a machine that `kedge init`, `kubeadm` or `kedge up` (with its data directory) made.
    pub fn usual(name: String, data_dir: PathBuf) -> Self {
        let owned = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut manifests = owned(&["/etc/kubernetes/manifests"]);
        manifests.push(data_dir.join("manifests"));
        let mut certificates = owned(&["/etc/kubernetes/pki", "/var/lib/kubelet/pki"]);
        certificates.push(data_dir.join("pki"));
        let mut disks = owned(&["/", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log"]);
        disks.extend(owned(&["/run", "/run/containerd"]));
        disks.push(data_dir.clone());
        Self { data_dir, name, manifests, certificates, disks, runtime: None, api_server: None }
    }
}

/// Reads a machine. Most of it needs root; what cannot be read is not seen.
pub async fn gather_node(places: &NodePlaces) -> Evidence {
    let mut evidence = Evidence { gathered: Timestamp::now(), ..Evidence::default() };
    let place = Place::Node(places.name.clone());
    let item = |origin: String, fact: Fact| Item { time: None, place: place.clone(), origin, fact };
    for directory in &places.manifests {
        manifests::read(directory, &item, &mut evidence);
    }
    for directory in &places.certificates {
        certificates::read(directory, &item, &mut evidence);
    }
    let (readings, control_plane) =
        tokio::join!(host::read(places, evidence.gathered), control_plane::read(places, &evidence));
    for reading in readings.into_iter().chain(control_plane) {
        reading.hand_over(&place, &mut evidence);
    }
    evidence
}

fn unseen(what: impl Into<String>, why: impl std::fmt::Display) -> Unseen {
    Unseen { what: what.into(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_machine_can_be_read() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let places = NodePlaces::usual("one".to_owned(), data_dir.path().to_owned());
        let evidence = gather_node(&places).await;
        let has = |wanted: fn(&Fact) -> bool| evidence.items.iter().any(|item| wanted(&item.fact));
        assert!(has(|fact| matches!(fact, Fact::Setting { value: Some(_), .. })));
        assert!(has(|fact| matches!(fact, Fact::FileSystem(_))));
        assert!(has(|fact| matches!(fact, Fact::Boot { .. })));
        assert!(has(|fact| matches!(fact, Fact::Measure(measure) if measure.name == "memory_available_bytes")));
        // It is no node: that no runtime answers is no fact of it.
        assert!(!has(|fact| matches!(fact, Fact::Measure(measure) if measure.name == "runtime_answers")));
        assert!(evidence.items.iter().all(|item| item.place == Place::Node("one".to_owned())));
    }
}
