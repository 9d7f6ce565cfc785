//! Everything of the machine itself, read at once: what waits for a program or a disk does not wait for the others.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::node::reading::Reading;
use crate::node::{
    NodePlaces, boots, clock, containers, disks, journal, kernel_log, limits, network, own_run, processes,
    runtime_config, settings, units,
};

/// Lines of the kernel's log that the journal is asked for: of this start, and of the one before.
const LINES: &str = "500";
const LINES_BEFORE: &str = "60";

/// The machine's readings.
pub(super) async fn read(places: &NodePlaces, now: Timestamp) -> Vec<Reading> {
    let (configuration, read) = runtime_config::read(&places.data_dir);
    let (own_run, own_endpoint) = own_run::read(&places.data_dir);
    let endpoint =
        places.runtime.clone().or(own_endpoint).or_else(|| read.iter().rev().find_map(|read| endpoint(read, places)));
    let is_node = is_node(places);
    let mut paths = places.disks.clone();
    paths.extend(read.iter().flat_map(disks::of_runtime));
    let uptime = uptime();
    let data_dir = places.data_dir.clone();
    let tasks: Vec<JoinHandle<Reading>> = vec![
        spawn_blocking(move || disks::read(&paths)),
        spawn_blocking(limits::read),
        spawn_blocking(settings::read),
        spawn_blocking(processes::read),
        spawn_blocking(move || boots::read(now, uptime)),
        spawn_blocking(kernel_log::read_crashes),
        spawn_blocking(move || journal::read_files(&data_dir, now)),
        tokio::spawn(async move { containers::read(endpoint.as_deref(), is_node).await }),
        tokio::spawn(services()),
        tokio::spawn(kernel(now, uptime)),
        tokio::spawn(network::read(places.data_dir.clone(), kubeconfigs(places))),
        tokio::spawn(clock::read_state()),
        tokio::spawn(clock::read_offset(kubeconfigs(places))),
    ];
    let mut readings = vec![configuration, own_run];
    for task in tasks {
        readings.push(task.await.unwrap_or_else(|error| {
            let mut reading = Reading::default();
            reading.miss("a part of the machine", error);
            reading
        }));
    }
    readings
}

/// Whether a kubelet of any kind belongs on this machine.
fn is_node(places: &NodePlaces) -> bool {
    PathBuf::from("/var/lib/kubelet/config.yaml").exists() || places.data_dir.join("kubelet").is_dir()
}

async fn services() -> Reading {
    let (mut reading, names) = units::read().await;
    reading.append(journal::read_units(&names).await);
    reading
}

/// The kernel's words of this start, and of the end of the one before.
async fn kernel(now: Timestamp, uptime: Duration) -> Reading {
    let ring = spawn_blocking(move || kernel_log::read_ring(now, uptime)).await;
    let has_journal = PathBuf::from("/run/systemd/system").is_dir();
    let mut reading = match has_journal {
        true => kernel_log::read_journal("-1", LINES_BEFORE).await,
        false => Reading::default(),
    };
    match ring {
        Ok(Ok(ring)) => reading.append(ring),
        Ok(Err(_)) if has_journal => reading.append(kernel_log::read_journal("0", LINES).await),
        Ok(Err(error)) => reading.miss("kernel log", error),
        Err(error) => reading.miss("kernel log", error),
    }
    reading
}

/// How this machine's own parts reach the API server.
fn kubeconfigs(places: &NodePlaces) -> Vec<PathBuf> {
    let own = ["kubelet.conf", "admin.conf"].into_iter().map(|name| places.data_dir.join(name));
    let usual = ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf"].into_iter().map(PathBuf::from);
    usual.chain(own).collect()
}

/// The socket of a containerd that Kedge runs by itself.
fn endpoint(configuration: &Value, places: &NodePlaces) -> Option<String> {
    let own = places.data_dir.join("containerd");
    let root = configuration["root"].as_str()?;
    let socket = configuration["grpc"]["address"].as_str()?;
    PathBuf::from(root).starts_with(&own).then(|| format!("unix://{socket}"))
}

fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_default())
}
