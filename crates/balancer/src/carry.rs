//! One connection from its beginning to its end: finds a server that takes it, and passes bytes on both ways.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::connect::connect;
use crate::run::Shared;
use crate::track::Seen;

/// So many servers are tried for one connection.
const MOST_TRIES: usize = 4;

/// Counts a connection as long as it lives.
struct Counted {
    shared: Arc<Shared>,
    server: SocketAddr,
    cut: CancellationToken,
}

impl Counted {
    fn new(shared: &Arc<Shared>, server: SocketAddr) -> Self {
        let cut = shared.pool.lock().open(server);
        Self { shared: shared.clone(), server, cut }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.pool.lock().close(self.server);
    }
}

/// Passes a connection on. Where no server takes it, it ends, and who called tries again.
pub(crate) async fn carry(shared: Arc<Shared>, mut caller: TcpStream) {
    let Some((mut server, counted)) = reach(&shared).await else { return };
    // Small requests should not wait for more bytes; where that can't be said they do.
    let _ = caller.set_nodelay(true);
    let both_ways = tokio::io::copy_bidirectional(&mut caller, &mut server);
    // A reset from either side ends both, and is theirs to tell.
    let _ = counted.cut.run_until_cancelled(both_ways).await;
}

async fn reach(shared: &Arc<Shared>) -> Option<(TcpStream, Counted)> {
    let seeds = shared.resolved_seeds().await;
    let order = shared.pool.lock().order(&seeds);
    for server in order.into_iter().take(MOST_TRIES) {
        match connect(server).await {
            Ok(stream) => {
                let counted = Counted::new(shared, server);
                shared.observe(server, Seen::Connected, "");
                return Some((stream, counted));
            }
            Err(error) => shared.observe(server, Seen::Silent, &error.to_string()),
        }
    }
    None
}
