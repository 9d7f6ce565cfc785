//! What makes a cluster one that nodes can join with a bootstrap token: `cluster-info`, and the permissions of those who join.
//!
//! Done beside the start, which nobody who only wants a cluster waits for. Invariant: tried until it is done.

use std::time::Duration;

use kedge_bootstrap::{ensure_cluster_info, ensure_node_bootstrap_rbac};
use kedge_client::{Backoff, Client};
use tokio_util::sync::CancellationToken;

use crate::kubelet::chain;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Publishes where the API is and lets token holders ask for a node's certificate.
pub(crate) async fn allow_joining(client: Client, server: String, authority_pem: String, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let work = async {
            ensure_cluster_info(&client, &server, &authority_pem).await?;
            ensure_node_bootstrap_rbac(&client).await
        };
        match shutdown.run_until_cancelled(work).await {
            None | Some(Ok(())) => return,
            Some(Err(error)) => tracing::warn!(error = chain(&error), "nodes cannot join with a token yet"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(backoff.next_delay())).await.is_none() {
            return;
        }
    }
}
