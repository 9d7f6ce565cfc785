//! How a store in an etcd is reached and run.
//!
//! Nothing is read from files here: certificates come as PEM. Invariant: an endpoint that cannot be one is refused before
//! anything is dialled.

use std::sync::Arc;
use std::time::Duration;

use kedge_meta::{Clock, SystemClock};
use kedge_store::HistoryLimits;

/// Certificates for connections to `https://` endpoints, as PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Whose certificates the servers must have.
    pub ca: Option<Vec<u8>>,
    /// The client's certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// How a store in an etcd is run.
#[derive(Clone)]
pub struct Options {
    /// The members' client URLs, such as `https://10.0.0.1:2379`. Where the scheme is left out, it is `http`.
    pub endpoints: Vec<String>,
    /// For `https` endpoints.
    pub tls: Tls,
    /// What every key of the store begins with; in etcd that is replaced by `prefix`.
    pub within: String,
    /// Below this everything lies in etcd.
    pub prefix: String,
    /// How much history is kept in memory.
    pub limits: HistoryLimits,
    /// Where the time of the history comes from.
    pub clock: Arc<dyn Clock>,
    /// How often etcd's history is compacted to what is older than this; never where absent. Several processes over one
    /// prefix do it together only once.
    pub compaction_interval: Option<Duration>,
    /// How long opening waits for a server that answers.
    pub open_timeout: Duration,
    /// How long reads wait for a server that answers.
    pub read_timeout: Duration,
    /// How long a commit waits for its answer. Longer than etcd's own deadline, so that its word comes first.
    pub commit_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            tls: Tls::default(),
            within: "/registry".to_owned(),
            prefix: "/registry".to_owned(),
            limits: HistoryLimits::default(),
            clock: Arc::new(SystemClock),
            compaction_interval: Some(Duration::from_secs(300)),
            open_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No endpoint was named.
    #[error("no etcd server is named")]
    NoEndpoints,
    /// An endpoint makes no sense.
    #[error("the etcd server {endpoint:?} cannot be used: {why}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates can't be used.
    #[error("the certificates for etcd cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// No server answered in time.
    #[error("etcd does not answer within {seconds} s ({}): {why}", endpoints.join(", "))]
    NoAnswer {
        /// Who was asked.
        endpoints: Vec<String>,
        /// How long.
        seconds: u64,
        /// The last failure.
        why: String,
    },
}
