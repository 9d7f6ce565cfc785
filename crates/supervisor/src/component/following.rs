//! What components do when their files change: certificates, keys and bundles that others renew while they run.
//!
//! TLS looks at its own files when somebody connects (`kedge_pki`); here is the rest. Invariant: what cannot be used is said
//! once and tried again, and what worked last goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kedge_apiserver::ApiServer;
use kedge_auth::TokenKeys;
use kedge_pki::FileMarks;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apiserver::{ApiServerOptions, token_keys};
use super::{read, read_optional};
use crate::backend::Backend;
use crate::error::Error;
use crate::kubelet::chain;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Acts each time that some files have changed, until `shutdown`; again and again where that fails. And once at first: they
/// may have changed after whoever starts this has read them.
async fn on_changes(
    what: &'static str,
    files: Vec<PathBuf>,
    shutdown: CancellationToken,
    mut act: impl AsyncFnMut() -> Result<(), Error>,
) {
    let (mut marks, mut told) = (FileMarks::new(files), Some(String::new()));
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        if !marks.have_changed() && told.is_none() {
            continue;
        }
        match act().await {
            Ok(()) => {
                tracing::debug!(what, "files are taken up");
                told = None;
            }
            Err(error) => {
                let why = chain(&error);
                if told.as_ref() != Some(&why) {
                    tracing::warn!(what, why, "files have changed and cannot be used; what was there before goes on");
                }
                told = Some(why);
            }
        }
    }
}

/// Keeps an API server to its files: keys of tokens, etcd's client certificate, authorities that it tells others about.
pub(super) fn follow_apiserver_files(
    options: &ApiServerOptions,
    server: &Arc<ApiServer>,
    backend: &Arc<Backend>,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    let (own, api) = (options.clone(), server.clone());
    let mut keys = options.service_account_key_files.clone();
    keys.push(options.service_account_signing_key_file.clone());
    tasks.spawn(on_changes("the keys of service-account tokens", keys, shutdown.clone(), async move || {
        api.replace_token_keys(token_keys(&own)?);
        Ok(())
    }));
    if let Some(etcd) = options.etcd.clone() {
        let backend = backend.clone();
        let files = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].into_iter().flatten().cloned().collect();
        let act = async move || backend.reread_tls(&etcd);
        tasks.spawn(on_changes("the certificates for etcd", files, shutdown.clone(), act));
    }
    let (own, api) = (options.clone(), server.clone());
    let act = async move || publish_authorities(&own, &api).await;
    tasks.spawn(on_changes("the authorities of clients", authorities(options), shutdown.clone(), act));
}

async fn publish_authorities(options: &ApiServerOptions, server: &ApiServer) -> Result<(), Error> {
    let clients = read_optional("--client-ca-file", options.client_ca_file.as_ref())?;
    let proxies = options.request_header.as_ref().map(|headers| &headers.client_ca_file);
    let proxies = read_optional("--requestheader-client-ca-file", proxies)?;
    Ok(server.publish_authorities(clients.as_deref(), proxies.as_deref()).await?)
}

/// The files with the authorities of clients, and of front proxies.
pub(super) fn authorities(options: &ApiServerOptions) -> Vec<PathBuf> {
    let proxies = options.request_header.as_ref().map(|headers| headers.client_ca_file.clone());
    options.client_ca_file.clone().into_iter().chain(proxies).collect()
}

/// What `--root-ca-file` says at each time.
pub(super) fn follow_root_ca(
    file: Option<&PathBuf>,
    shutdown: &CancellationToken,
) -> Result<watch::Receiver<String>, Error> {
    const FLAG: &str = "--root-ca-file";
    let (sender, receiver) = watch::channel(read_optional(FLAG, file)?.unwrap_or_default());
    if let Some(file) = file.cloned() {
        let files = vec![file.clone()];
        let act = async move || {
            let bundle = read(FLAG, &file)?;
            sender.send_if_modified(|held| {
                let is_new = *held != bundle && !bundle.trim().is_empty();
                if is_new {
                    *held = bundle;
                }
                is_new
            });
            Ok(())
        };
        tokio::spawn(on_changes("the bundle for pods", files, shutdown.clone(), act));
    }
    Ok(receiver)
}

/// The keys that `--service-account-private-key-file` holds at each time; `None` where there is no such file, or its key is
/// of a kind that cannot sign here, which the log says.
pub(super) fn follow_token_keys(
    file: Option<&PathBuf>,
    shutdown: &CancellationToken,
) -> Result<Option<watch::Receiver<Arc<TokenKeys>>>, Error> {
    const FLAG: &str = "--service-account-private-key-file";
    let Some(file) = file.cloned() else { return Ok(None) };
    let keys = match TokenKeys::from_private_pem(&read(FLAG, &file)?) {
        Ok(keys) => keys,
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(flag = FLAG, file = %file.display(), why, "Secrets for tokens of service accounts stay empty");
            return Ok(None);
        }
    };
    let (sender, receiver) = watch::channel(Arc::new(keys));
    let files = vec![file.clone()];
    let act = async move || {
        sender.send_replace(Arc::new(TokenKeys::from_private_pem(&read(FLAG, &file)?)?));
        Ok(())
    };
    tokio::spawn(on_changes("the key of tokens in Secrets", files, shutdown.clone(), act));
    Ok(Some(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_get_the_bundle_that_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, "old").unwrap();
        let shutdown = CancellationToken::new();
        let mut bundle = follow_root_ca(Some(&file), &shutdown).unwrap();
        assert_eq!(*bundle.borrow_and_update(), "old");
        kedge_pki::write_public(&file, b"old and new").unwrap();
        bundle.changed().await.unwrap();
        assert_eq!(*bundle.borrow(), "old and new");
        shutdown.cancel();
        assert!(follow_root_ca(None, &shutdown).unwrap().borrow().is_empty());
    }

    #[tokio::test]
    async fn a_key_that_cannot_sign_ends_nothing_and_kubeadms_signs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sa.key");
        let shutdown = CancellationToken::new();
        let follow = |file: &PathBuf| follow_token_keys(Some(file), &shutdown);
        assert!(follow(&file).is_err(), "there is no such file");
        std::fs::write(&file, "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n").unwrap();
        assert!(follow(&file).unwrap().is_none());
        // As kubeadm writes it.
        let body = include_str!("../../../auth/src/token_key/rsa.pkcs1.base64");
        let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", body.trim());
        std::fs::write(&file, pem).unwrap();
        let keys = follow(&file).unwrap().unwrap();
        assert_eq!(keys.borrow().algorithms(), ["RS256"]);
        shutdown.cancel();
    }
}
