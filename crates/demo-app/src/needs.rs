//! What the application needs before it is ready, as a database would be: an address that takes connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An address that is tried again and again.
#[derive(Debug)]
pub(crate) struct Need {
    /// Host and port.
    target: String,
    is_met: AtomicBool,
}

impl Need {
    pub(crate) fn new(target: String) -> Self {
        Self { target, is_met: AtomicBool::new(false) }
    }

    /// Whether it took the last connection.
    pub(crate) fn is_met(&self) -> bool {
        self.is_met.load(Ordering::Relaxed)
    }

    /// Tries it for as long as it is polled. Each failure is a line of the log.
    pub(crate) async fn keep_trying(&self) {
        loop {
            self.try_once().await;
            sleep(PAUSE).await;
        }
    }

    async fn try_once(&self) {
        let target = &self.target;
        let error = match self.connect().await {
            Ok(()) => {
                if !self.is_met.swap(true, Ordering::Relaxed) {
                    tracing::info!("{target} takes connections");
                }
                return;
            }
            Err(error) => error,
        };
        self.is_met.store(false, Ordering::Relaxed);
        tracing::error!("cannot reach {target}: {error}");
    }

    /// The resolver has a patience of its own, and says itself what became of the name.
    async fn connect(&self) -> std::io::Result<()> {
        let addresses: Vec<_> = lookup_host(&self.target).await?.collect();
        timeout(PATIENCE, TcpStream::connect(&addresses[..])).await.map_err(std::io::Error::from)??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn it_is_met_while_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let need = Need::new(listener.local_addr().expect("it has an address").to_string());
        assert!(!need.is_met());
        need.try_once().await;
        assert!(need.is_met());
        drop(listener);
        need.try_once().await;
        assert!(!need.is_met());
    }
}
