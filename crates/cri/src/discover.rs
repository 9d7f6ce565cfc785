//! The search for a container runtime on this machine.
//!
//! It asks and changes nothing. Invariant: an endpoint is returned only when CRI v1 answered there just now, so that a
//! stale socket or a containerd without its CRI plugin (as Docker's packages ship it) is passed over.

use std::path::Path;

use tracing::debug;

use crate::runtime::Runtime;

/// The sockets that are tried, in this order; upstream's kubeadm knows the first two as well.
pub const WELL_KNOWN_ENDPOINTS: &[&str] = &[
    "unix:///run/containerd/containerd.sock",
    "unix:///var/run/crio/crio.sock",
    "unix:///run/k3s/containerd/containerd.sock",
    "unix:///run/cri-dockerd.sock",
];

/// The first well-known endpoint that answers CRI v1, or `None`.
pub async fn discover_endpoint() -> Option<String> {
    first_answering(WELL_KNOWN_ENDPOINTS).await
}

async fn first_answering(endpoints: &[&str]) -> Option<String> {
    for endpoint in endpoints {
        if !Path::new(endpoint.trim_start_matches("unix://")).exists() {
            continue;
        }
        match Runtime::connect(endpoint).await {
            Ok(_) => return Some((*endpoint).to_owned()),
            Err(error) => debug!(endpoint, %error, "passed over a socket that does not answer CRI v1"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_passed_over() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        let endpoint = format!("unix://{}", path.display());
        assert_eq!(first_answering(&[&endpoint]).await, None);
    }
}
