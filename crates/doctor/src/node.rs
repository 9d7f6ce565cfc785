//! What a machine says, also without an API server: static pods and what they refer to, containers of the runtime,
//! certificates, logs, units, processes, settings of the kernel, disks, the clock, and whether the API server's port answers.

mod boots;
mod certificates;
mod clock;
mod containers;
mod disks;
mod host;
mod journal;
mod kernel_log;
mod limits;
mod manifests;
mod processes;
mod program;
mod reading;
mod runtime_config;
mod settings;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kedge_diagnosis::{Evidence, Fact, Item, Place, Unseen};

const CALL_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Where an API server should listen, if this machine has one.
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
        disks.extend(owned(&["/run", "/run/containerd", "/tmp"]));
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
    let (readings, endpoint) = host::read(places, evidence.gathered).await;
    for reading in readings {
        reading.hand_over(&place, &mut evidence);
    }
    let endpoint = places.runtime.clone().or(endpoint);
    containers::read(endpoint.as_deref(), host::is_node(places), &item, &mut evidence).await;
    if let Some(address) = places.api_server {
        evidence.items.push(item("a connection".to_owned(), call(address).await));
    }
    evidence
}

async fn call(address: SocketAddr) -> Fact {
    let error = match tokio::time::timeout(CALL_TIMEOUT, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
    };
    Fact::Call { target: format!("https://{address}"), error }
}

fn unseen(what: impl Into<String>, why: impl std::fmt::Display) -> Unseen {
    Unseen { what: what.into(), why: why.to_string() }
}
