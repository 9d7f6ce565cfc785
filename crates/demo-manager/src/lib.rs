//! A controller manager as others write them, to practise with: it competes for a lease in upstream's way, serves a webhook,
//! and ends with its lease, as its authors' library does.
//!
//! Kedge's own components do not end (`kedge_client::LeaderElector`); this one is here so that `kedge drill` can show what
//! becomes of those that do. It manages nothing. Invariant: what it says, it says in upstream's lines.

mod decision;
mod election;
mod lines;
mod webhook;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kedge_client::Client;
use tokio_util::sync::CancellationToken;

pub use election::ElectionOptions;

/// What it was asked for: the flags of the library that such managers are made with.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// How it competes with others; it does not where absent.
    pub election: Option<ElectionOptions>,
    /// Port of the webhook.
    pub webhook_port: u16,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else may lead now.
    #[error("leader election lost")]
    LeaseLost,
    /// The durations contradict each other.
    #[error("{0}")]
    Election(&'static str),
    /// The webhook's address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The webhook has no certificate.
    #[error("cannot make a certificate")]
    Certificate(#[from] kedge_pki::PkiError),
    /// There is no place to make it in.
    #[error("cannot make a certificate")]
    Scratch(#[source] std::io::Error),
}

/// Runs until `shutdown`, or until the lease is lost.
pub async fn run(options: ManagerOptions, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), options.webhook_port);
    let webhook = webhook::serve(address, shutdown.clone()).await?;
    lines::information("server.go:201", &format!("\"Serving webhook server\" host=\"\" port={}", webhook.port()));
    let Some(election) = options.election else {
        shutdown.cancelled().await;
        return Ok(());
    };
    let lost = election::lead(&client, &election, &shutdown).await;
    if let Err(error) = &lost {
        lines::error("main.go:200", &format!("\"setup: problem running manager\" err=\"{error}\""));
    }
    lost
}
