//! What the parts of the network tell each other: the node's own, the routes to other nodes, the announced addresses.
//!
//! Invariant: nothing is assumed that was not said yet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;

/// One for a node; all parts have a copy.
#[derive(Debug, Clone)]
pub struct Agreement {
    said: Arc<watch::Sender<Said>>,
}

/// What was said so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Said {
    /// Whether some packets go through a tunnel, which leaves less room for pods.
    pub(crate) has_tunnels: Option<bool>,
    /// The configuration of another network, which makes routes of its own.
    pub(crate) foreign: Option<String>,
    /// The MTU of pods.
    pub(crate) mtu: Option<u32>,
    /// The nodes that neither answer nor have a session.
    pub(crate) unreachable: BTreeSet<String>,
    /// The addresses of Services to which this node is a way.
    pub(crate) routes: BTreeSet<Ipv4Addr>,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { said: Arc::new(watch::Sender::new(Said::default())) }
    }
}

impl Agreement {
    pub(crate) fn get(&self) -> Said {
        self.said.borrow().clone()
    }

    /// Changes what is said; whoever listens hears of it only where it is news.
    pub(crate) fn say(&self, change: impl FnOnce(&mut Said)) {
        self.said.send_if_modified(|said| {
            let before = said.clone();
            change(said);
            *said != before
        });
    }

    pub(crate) fn listen(&self) -> watch::Receiver<Said> {
        self.said.subscribe()
    }
}
