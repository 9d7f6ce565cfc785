//! What the two halves of the pod network, the node's own part and the routes to other nodes, tell each other.
//!
//! Invariant: nothing is assumed that was not said yet.

use std::sync::Arc;

use tokio::sync::watch;

/// One for a node; both halves have a copy.
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
