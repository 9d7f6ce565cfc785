//! The pages of the controllers and of the scheduler of `kedge up`, at upstream's ports: health, metrics, flags and status.
//!
//! The API server of the same process says who may read them. Invariant: a usual port that somebody else has costs the pages
//! and nothing more; one that was asked for must be free.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kedge_client::Client;
use kedge_meta::{Clock, StatusBoard};
use kedge_metrics::Text;
use kedge_pki::ServerFiles;
use kedge_zpages::Flags;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delegated::Delegation;
use super::{component, figures, health};
use crate::error::Error;

/// A component that shows its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageOwner {
    pub(crate) name: &'static str,
    /// The port at which upstream's has them.
    pub(crate) usual_port: u16,
    /// The flag that names another.
    pub(crate) flag: &'static str,
}

pub(crate) const CONTROLLER_MANAGER: PageOwner =
    PageOwner { name: "kube-controller-manager", usual_port: 10257, flag: "--controller-manager-secure-port" };
pub(crate) const SCHEDULER: PageOwner =
    PageOwner { name: "kube-scheduler", usual_port: 10259, flag: "--scheduler-secure-port" };

/// What the pages of all components of a process have in common.
pub(crate) struct Pages {
    /// Where they are.
    pub(crate) address: IpAddr,
    /// The certificate that they show, and whose certificates they take.
    pub(crate) files: ServerFiles,
    pub(crate) board: StatusBoard,
    pub(crate) clock: Arc<dyn Clock>,
    /// The command line.
    pub(crate) flags: Flags,
}

impl Pages {
    /// Shows what `write` writes, and the rest, until `shutdown`, at the port that was asked for (0 for none), or at the usual
    /// one where that is free. `client` asks the API server, as the component.
    pub(crate) async fn show(
        &self,
        owner: PageOwner,
        asked_port: Option<u16>,
        client: Client,
        write: impl Fn(&mut Text) + Send + Sync + 'static,
        of_pods: Option<health::Figures>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Some(listener) = self.listen(owner, asked_port).await? else { return Ok(()) };
        let about = health::About {
            component: component(owner.name, self.flags.clone(), &self.clock),
            config: None,
            figures: figures(write),
            of_pods,
            board: self.board.clone(),
            clock: self.clock.clone(),
        };
        let tls = watch::channel(Arc::new(self.files.server_config()?)).1;
        health::serve_on(listener, tls, about, Delegation::asking(client), shutdown);
        Ok(())
    }

    async fn listen(&self, owner: PageOwner, asked_port: Option<u16>) -> Result<Option<TcpListener>, Error> {
        if asked_port == Some(0) {
            return Ok(None);
        }
        let address = SocketAddr::new(self.address, asked_port.unwrap_or(owner.usual_port));
        match (TcpListener::bind(address).await, asked_port) {
            (Ok(listener), _) => Ok(Some(listener)),
            (Err(source), Some(_)) => Err(Error::Listen { address: address.to_string(), source }),
            (Err(error), None) => {
                let (component, flag) = (owner.name, owner.flag);
                tracing::warn!(component, %address, %error, "its metrics are not shown; {flag} chooses another port");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_was_asked_for_must_be_free() {
        let clock: Arc<dyn Clock> = Arc::new(kedge_meta::SystemClock);
        let pages = Pages {
            address: IpAddr::from([127, 0, 0, 1]),
            files: ServerFiles { certificate: "".into(), key: "".into(), client_authorities: Vec::new() },
            board: StatusBoard::new(clock.clone()),
            clock,
            flags: Flags::default(),
        };
        let others = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = others.local_addr().unwrap().port();
        let owner = PageOwner { usual_port: taken, ..SCHEDULER };
        assert!(pages.listen(owner, Some(0)).await.unwrap().is_none());
        assert!(pages.listen(owner, None).await.unwrap().is_none());
        assert!(matches!(pages.listen(owner, Some(taken)).await, Err(Error::Listen { .. })));
        drop(others);
        let listener = pages.listen(owner, Some(taken)).await.unwrap().expect("it is free");
        assert_eq!(listener.local_addr().unwrap().port(), taken);
    }
}
