//! How a client comes about: inside the process, or over HTTPS from a kubeconfig.
//!
//! Invariant: no request and no watch waits for ever on a server that is gone without a word.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, Service};

use crate::reload::{Source, reloading_in_cluster};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch brings a bookmark every minute or so; one that is silent for longer than two may have lost its server, and is
/// begun again (`failure::is_silence`): upstream's sends none of a kind that it has seen no change of.
const READ_TIMEOUT: Duration = Duration::from_secs(130);

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
    /// This is no pod with a service account.
    #[error("this program runs in no pod of a cluster; name a kubeconfig")]
    Cluster(#[source] kube::config::InClusterError),
    /// The TLS material is not usable.
    #[error("cannot make a client")]
    Client(#[source] kube::Error),
}

/// A client that speaks HTTPS to the server of a kubeconfig's current context, and goes on with what the file and those that
/// it names say later.
pub async fn client_from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    Source::Kubeconfig(path.to_owned()).client().await
}

/// A client for a program in a pod: its service account's token, the API server's Service, the authorities that the pod is
/// given at each time.
pub fn client_in_cluster() -> Result<Client, ConnectError> {
    reloading_in_cluster()
}

/// A client to the server of a kubeconfig that shows no credentials of the file's: who uses it brings its own.
pub async fn anonymous_client_from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    Source::Anonymous(path.to_owned()).client().await
}

/// A client with what the file says now.
pub(crate) async fn connect_with(path: &Path) -> Result<Client, ConnectError> {
    made_of(configuration(path).await?)
}

/// The same without the file's credentials.
pub(crate) async fn connect_anonymously(path: &Path) -> Result<Client, ConnectError> {
    let mut config = configuration(path).await?;
    config.auth_info = kube::config::AuthInfo::default();
    made_of(config)
}

/// A client with what the pod is given now.
pub(crate) fn connect_in_cluster() -> Result<Client, ConnectError> {
    made_of(Config::incluster().map_err(ConnectError::Cluster)?)
}

async fn configuration(path: &Path) -> Result<Config, ConnectError> {
    let wrap = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrap)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrap)
}

fn made_of(mut config: Config) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(ConnectError::Client)
}

/// The server of a kubeconfig's current context.
pub fn server_of_kubeconfig(path: &Path) -> Option<String> {
    let kubeconfig = Kubeconfig::read_from(path).ok()?;
    let current = kubeconfig.current_context.as_deref().unwrap_or_default();
    let context = kubeconfig.contexts.iter().find(|context| context.name == current)?.context.clone()?;
    let cluster = kubeconfig.clusters.into_iter().find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster?.server
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
