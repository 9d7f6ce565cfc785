//! Where objects are kept: in this machine's data directory, or in an etcd.
//!
//! The only place that knows which store runs. Invariant: a failure comes with what can be done about it.

use std::path::PathBuf;
use std::sync::Arc;

use kedge_store::Store;
use kedge_store_embedded::EmbeddedStore;
use kedge_store_etcd::{EtcdStore, Tls};

use crate::error::Error;

/// An etcd, as the flags name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// The members' client URLs.
    pub servers: Vec<String>,
    /// PEM file of the authority that signed the members' certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key_file: Option<PathBuf>,
    /// Below this everything lies in the etcd.
    pub prefix: String,
}

/// The store that runs.
pub(crate) enum Backend {
    Embedded(Arc<EmbeddedStore>),
    Etcd(Arc<EtcdStore>),
}

impl Backend {
    /// Opens the store that was asked for.
    pub(crate) async fn open(etcd: Option<&EtcdOptions>, path: PathBuf) -> Result<Self, Error> {
        if let Some(etcd) = etcd {
            let options = kedge_store_etcd::Options {
                endpoints: etcd.servers.clone(),
                tls: read_tls(etcd)?,
                prefix: etcd.prefix.clone(),
                ..kedge_store_etcd::Options::default()
            };
            return Ok(Self::Etcd(Arc::new(EtcdStore::open(options).await?)));
        }
        let options = kedge_store_embedded::Options::default();
        let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, options));
        match opened.await {
            Ok(store) => Ok(Self::Embedded(Arc::new(store?))),
            Err(error) => Err(Error::Component { component: "store", why: error.to_string() }),
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// Takes up the certificates that are in the files now.
    pub(crate) fn reread_tls(&self, etcd: &EtcdOptions) -> Result<(), Error> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Etcd(store) => Ok(store.replace_tls(&read_tls(etcd)?)?),
        }
    }

    /// What is wrong with the store now, and what to do.
    pub(crate) fn failure(&self) -> Option<String> {
        let (why, advice) = match self {
            Self::Embedded(store) => {
                let advice = "reads go on, writes are refused, nothing acknowledged is lost; mend the disk (or free \
                              space on it), and writes go on by themselves";
                (store.failure()?, advice)
            }
            Self::Etcd(store) => {
                let advice = "requests are refused, nothing acknowledged is lost; bring a quorum of etcd's members \
                              back, and everything goes on by itself";
                (store.failure()?, advice)
            }
        };
        Some(format!("{why}: {advice}"))
    }
}

fn read_tls(etcd: &EtcdOptions) -> Result<Tls, Error> {
    let ca = etcd.ca_file.as_ref().map(|path| read("--etcd-cafile", path)).transpose()?;
    let identity = match (&etcd.cert_file, &etcd.key_file) {
        (Some(certificate), Some(key)) => Some((read("--etcd-certfile", certificate)?, read("--etcd-keyfile", key)?)),
        _ => None,
    };
    Ok(Tls { ca, identity })
}

fn read(flag: &'static str, path: &PathBuf) -> Result<Vec<u8>, Error> {
    let wrong = |error: std::io::Error| Error::Flag {
        flag,
        value: path.display().to_string(),
        why: format!("the file cannot be read: {error}"),
    };
    std::fs::read(path).map_err(wrong)
}
