//! How the components of a node reach their cluster, and as whom: inside the process that holds the control plane, or over
//! the network from a node that joined.
//!
//! Invariant: the kubelet is always `system:node:<name>` and has informers of its own; the others share theirs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use kedge_client::{Client, Informers};
use kedge_meta::{Clock, StatusBoard};
use kedge_pki::ServerFiles;
use rustls::ServerConfig;

use crate::control_plane::ControlPlane;
use crate::error::Error;
use crate::options::Plan;

/// What the components of a node are given of their cluster.
pub(crate) struct Access {
    /// The API as the node.
    pub(crate) kubelet: Client,
    /// Where the API is, as figures name it.
    pub(crate) api_host: String,
    /// The API as somebody who may write volumes and claims.
    pub(crate) provisioner: Client,
    /// The caches that all but the kubelet share.
    pub(crate) informers: Informers,
    /// Where everybody reports.
    pub(crate) board: StatusBoard,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The kubelet's serving certificate, and whose client certificates it takes.
    pub(crate) kubelet_tls: Arc<ServerConfig>,
}

impl Access {
    /// That of the node in the control plane's own process.
    pub(crate) fn in_process(plan: &Plan, control_plane: &ControlPlane) -> Result<Self, Error> {
        let account = "system:serviceaccount:kube-system:persistent-volume-binder";
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        let pki = &control_plane.pki;
        Ok(Self {
            kubelet: control_plane.client(&format!("system:node:{}", plan.node_name), &["system:nodes"]),
            // The server is in this process; it has no other name than the one that others reach it by.
            api_host: SocketAddr::new(plan.node_ip, plan.options.secure_port).to_string(),
            provisioner: control_plane.client(account, &groups),
            informers: control_plane.informers.clone(),
            board: control_plane.board.clone(),
            clock: control_plane.clock.clone(),
            kubelet_tls: kubelet_tls(&pki.dir)?,
        })
    }
}

/// TLS of the kubelet's server, with the certificate in the directory at the time.
pub(crate) fn kubelet_tls(dir: &Path) -> Result<Arc<ServerConfig>, Error> {
    let files = ServerFiles {
        certificate: dir.join("kubelet.crt"),
        key: dir.join("kubelet.key"),
        client_authorities: vec![dir.join("ca.crt")],
    };
    Ok(Arc::new(files.server_config()?))
}
