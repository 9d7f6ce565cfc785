//! How a client comes about, and what its failures mean.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, Service};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be read, or names things that are not there.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// The TLS material is not usable.
    #[error("cannot make a client")]
    Client(#[source] kube::Error),
}

/// A client that speaks HTTPS to the server of a kubeconfig's current context.
pub async fn client_from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    let wrap = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrap)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrap)?;
    Client::try_from(config).map_err(ConnectError::Client)
}

/// A client that calls an HTTP service directly: the API server of this process. Must run inside a tokio runtime.
pub fn client_from_service<S, B>(service: S) -> Client
where
    S: Service<http::Request<kube::client::Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// What kind of failure keeps a client from the API server; each is mended differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// Nothing listens there.
    ConnectionRefused,
    /// The name does not resolve.
    NoSuchHost,
    /// The certificate or the protocol is wrong.
    Tls,
    /// No answer in time.
    Timeout,
    /// The server answered with an error.
    Status(u16),
    /// Anything else.
    Other,
}

/// Finds the cause in the chain of an error.
pub fn classify(error: &kube::Error) -> FailureCause {
    if let kube::Error::Api(status) = error {
        return FailureCause::Status(status.code);
    }
    let mut link: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = link {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return FailureCause::ConnectionRefused,
                std::io::ErrorKind::TimedOut => return FailureCause::Timeout,
                _ => {}
            }
        }
        let text = current.to_string();
        if text.contains("lookup address") || text.contains("Name or service not known") {
            return FailureCause::NoSuchHost;
        }
        if text.contains("certificate") || text.contains("tls") {
            return FailureCause::Tls;
        }
        if text.contains("timed out") || text.contains("deadline has elapsed") {
            return FailureCause::Timeout;
        }
        link = current.source();
    }
    FailureCause::Other
}
