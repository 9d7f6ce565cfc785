//! What can go wrong, in kubeadm's words where it has them.

use std::path::PathBuf;

/// Why something about joining did not come about.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A text is no token.
    #[error("the bootstrap token {0:?} was not of the form \"\\\\A([a-z0-9]{{6}})\\\\.([a-z0-9]{{16}})\\\\z\"")]
    NoToken(String),
    /// A text is neither a token nor the id of one.
    #[error(
        "given token didn't match pattern \"\\\\A([a-z0-9]{{6}})\\\\.([a-z0-9]{{16}})\\\\z\" or \"\\\\A([a-z0-9]{{6}})\\\\z\""
    )]
    NoTokenId(String),
    /// A token says something that is not allowed.
    #[error("{0}")]
    TokenSpec(String),
    /// A token of this id exists.
    #[error("a token with id {0:?} already exists")]
    TokenExists(String),
    /// A text is no certificate key.
    #[error("{0}")]
    CertificateKey(String),
    /// The API refused, or did not answer.
    #[error("{what}")]
    Api {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// No client could be made.
    #[error("cannot make a client for {server}")]
    Client {
        /// The API server.
        server: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A kubeconfig says less than is needed, or something else.
    #[error("{what}")]
    Kubeconfig {
        /// Which one, and what is wrong.
        what: String,
        /// Why it cannot be read, where it cannot.
        source: Option<Box<kube::config::KubeconfigError>>,
    },
    /// What was found is not to be trusted, or not there.
    #[error("{0}")]
    Discovery(String),
    /// The Secret with a control plane's certificates cannot be used.
    #[error("{0}")]
    Certs(String),
    /// A file can't be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Keys or certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] kedge_pki::PkiError),
    /// A certificate was asked for and not given.
    #[error("{0}")]
    Refused(String),
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

impl BootstrapError {
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { what: what.into(), source: Box::new(source) }
    }

    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
