//! Why a cluster can't be started, asked or ended. Each text says what to do where something can be done.

use std::path::PathBuf;

use kedge_lifecycle::Finding;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag's value makes no sense.
    #[error("{flag} {value:?} cannot be used: {why}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The machine is not ready; nothing was changed.
    #[error("this machine is not ready (nothing was changed):{}", list(findings))]
    Preflight {
        /// Everything that is wrong.
        findings: Vec<Finding>,
    },
    /// The data directory is in use or can't be used.
    #[error(transparent)]
    Lock(#[from] kedge_lifecycle::LockError),
    /// The node has no address or name.
    #[error(transparent)]
    Address(#[from] kedge_lifecycle::AddressError),
    /// Certificates or kubeconfigs.
    #[error(transparent)]
    Pki(#[from] kedge_pki::PkiError),
    /// The service-account key.
    #[error(transparent)]
    Auth(#[from] kedge_auth::AuthError),
    /// The store.
    #[error(transparent)]
    Store(#[from] kedge_store_embedded::EmbeddedError),
    /// The store in an etcd.
    #[error(transparent)]
    Etcd(#[from] kedge_store_etcd::EtcdError),
    /// The store, at the end.
    #[error("the store did not end cleanly")]
    CloseStore(#[source] kedge_store::StoreError),
    /// The API server.
    #[error(transparent)]
    ApiServer(#[from] kedge_apiserver::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] kedge_audit::AuditError),
    /// The API server's socket.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The run file.
    #[error(transparent)]
    RunFile(#[from] kedge_lifecycle::RunFileError),
    /// The container runtime does not answer.
    #[error("the container runtime cannot be used")]
    Runtime(#[from] kedge_cri::CriError),
    /// A containerd of Kedge's own can't be started.
    #[error(transparent)]
    PrivateContainerd(#[from] kedge_cri::PrivateContainerdError),
    /// An image can't be built or imported.
    #[error(transparent)]
    Image(#[from] kedge_lifecycle::ImageError),
    /// An archive can't be imported.
    #[error("cannot load {}", archive.display())]
    LoadImage {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The demo can't be deployed.
    #[error(transparent)]
    Demo(#[from] kedge_lifecycle::DemoError),
    /// A component ended before its time.
    #[error("{component} ended unexpectedly: {why}")]
    Component {
        /// Which.
        component: &'static str,
        /// Its last words.
        why: String,
    },
    /// Something did not happen in time.
    #[error("{what} after {seconds} s\n  {advice}")]
    TooLong {
        /// What is still not so.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// What to look at.
        advice: String,
    },
    /// No cluster runs there.
    #[error("no cluster runs in {}\n  start one with `kedge up`, or name its directory with --data-dir", dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
    },
    /// The running cluster does not answer.
    #[error("process {pid} runs the cluster, but its API server does not answer")]
    NoAnswer {
        /// The process.
        pid: i32,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something could not be taken down.
    #[error(transparent)]
    Teardown(#[from] kedge_lifecycle::TeardownError),
    /// The network's or proxy's traces could not be removed.
    #[error("cannot remove {what}")]
    Remove {
        /// What.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the components of a node that joined report can't be kept or read.
    #[error("cannot access {}", path.display())]
    Reports {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The start was interrupted.
    #[error("interrupted")]
    Interrupted,
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  [{}] {}", finding.check, finding.text)).collect()
}
