//! A control plane's authorities and keys in the Secret `kubeadm-certs`, encrypted, and back into files.
//!
//! The Secret belongs to a bootstrap token that can do nothing but end: with it, after two hours, goes the Secret.
//! Invariant: nothing is written to disk unless everything could be decrypted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kedge_client::Client;
use kube::api::Api;
use serde_json::json;

use crate::Say;
use crate::certificate_key::CertificateKey;
use crate::error::BootstrapError;
use crate::objects::put;
use crate::rbac::ensure_certs_rbac;
use crate::token::BootstrapToken;
use crate::tokens::{TokenSpec, create_token};

pub(crate) const NAMESPACE: &str = "kube-system";
const NAME: &str = "kubeadm-certs";
const LIFETIME: Duration = Duration::from_secs(2 * 3600);
const DESCRIPTION: &str = "Proxy for managing TTL for the kubeadm-certs secret";

/// The files, below the directory of the certificates.
pub fn transferred_files(local_etcd: bool) -> Vec<&'static str> {
    let mut files = vec!["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"];
    if local_etcd {
        files.extend(["etcd/ca.crt", "etcd/ca.key"]);
    }
    files
}

fn entry(file: &str) -> String {
    file.replace('/', "-")
}

/// Puts the authorities into the cluster for two hours.
pub async fn upload_certs(
    client: &Client,
    dir: &Path,
    key: &CertificateKey,
    local_etcd: bool,
    say: Say<'_>,
) -> Result<(), BootstrapError> {
    say(&format!("[upload-certs] Storing the certificates in Secret {NAME:?} in the {NAMESPACE:?} Namespace"));
    store_for_two_hours(client, NAME, DESCRIPTION, encrypted(dir, key, local_etcd)?).await?;
    ensure_certs_rbac(client).await
}

/// Puts a Secret that ends with a token of its own.
pub(crate) async fn store_for_two_hours(
    client: &Client,
    name: &str,
    description: &str,
    data: BTreeMap<String, ByteString>,
) -> Result<(), BootstrapError> {
    let token = BootstrapToken::generate();
    let id = token.id().to_owned();
    let spec = TokenSpec {
        token,
        description: description.to_owned(),
        ttl: Some(LIFETIME),
        usages: Vec::new(),
        groups: Vec::new(),
    };
    create_token(client, &spec).await?;
    let owner = BootstrapToken::secret_name(&id);
    let owner = Api::<Secret>::namespaced(client.clone(), NAMESPACE).get(&owner).await;
    let owner = owner.map_err(BootstrapError::api("error to get token reference"))?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "data": data,
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [{
            "apiVersion": "v1", "kind": "Secret", "name": owner.metadata.name, "uid": owner.metadata.uid,
            "controller": true, "blockOwnerDeletion": true,
        }]},
    });
    put(client, secret).await
}

fn encrypted(
    dir: &Path,
    key: &CertificateKey,
    local_etcd: bool,
) -> Result<BTreeMap<String, ByteString>, BootstrapError> {
    let mut data = BTreeMap::new();
    for file in transferred_files(local_etcd) {
        let path = dir.join(file);
        let sealed = match std::fs::read(&path) {
            Ok(content) => key.encrypt(&content)?,
            // An authority that is kept elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(BootstrapError::file("read", &path)(error)),
        };
        data.insert(entry(file), ByteString(sealed));
    }
    Ok(data)
}

/// Gets the authorities out of the cluster into files.
pub async fn download_certs(
    client: &Client,
    dir: &Path,
    key: &CertificateKey,
    local_etcd: bool,
    say: Say<'_>,
) -> Result<(), BootstrapError> {
    say(&format!("[download-certs] Downloading the certificates in Secret {NAME:?} in the {NAMESPACE:?} Namespace"));
    let secret = Api::<Secret>::namespaced(client.clone(), NAMESPACE).get_opt(NAME).await;
    let secret = secret.map_err(BootstrapError::api("error downloading the secret"))?.ok_or_else(|| {
        BootstrapError::Certs(format!(
            "error downloading the secret: Secret {NAME:?} was not found in the {NAMESPACE:?} Namespace. This Secret might \
             have expired. Please, run `kedge init phase upload-certs --upload-certs` on a control plane to generate a new one"
        ))
    })?;
    let files = decrypted(&secret.data.unwrap_or_default(), key, local_etcd)?;
    say(&format!("[download-certs] Saving the certificates to the folder: {:?}", dir.display().to_string()));
    for (file, content) in files.iter().filter(|(_, content)| !content.is_empty()) {
        let path = dir.join(file);
        let written = match file.ends_with(".key") {
            true => kedge_pki::write_private(&path, content),
            false => kedge_pki::write_public(&path, content),
        };
        written?;
    }
    Ok(())
}

fn decrypted(
    data: &BTreeMap<String, ByteString>,
    key: &CertificateKey,
    local_etcd: bool,
) -> Result<Vec<(&'static str, Vec<u8>)>, BootstrapError> {
    let mut files = Vec::new();
    for file in transferred_files(local_etcd) {
        let Some(sealed) = data.get(&entry(file)) else {
            let name = entry(file);
            return Err(BootstrapError::Certs(format!(
                "the Secret does not include the required certificate or key - name: {name}, path: {file}"
            )));
        };
        let content = match sealed.0.is_empty() {
            true => Vec::new(),
            false => key.decrypt(&sealed.0).map_err(|error| {
                BootstrapError::Certs(format!("error decoding secret data with provided key: {error}"))
            })?,
        };
        files.push((file, content));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_through_the_secret_and_the_wrong_key_gives_none() {
        let dir = tempfile::tempdir().unwrap();
        for file in transferred_files(true).iter().filter(|file| !file.starts_with("front-proxy")) {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("content of {file}")).unwrap();
        }
        let key = CertificateKey::generate().unwrap();
        let data = encrypted(dir.path(), &key, true).unwrap();
        assert!(data.contains_key("etcd-ca.key") && data["front-proxy-ca.crt"].0.is_empty());
        let files = decrypted(&data, &key, true).unwrap();
        let of = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, content)| content.clone()).unwrap();
        assert_eq!(of("etcd/ca.key"), b"content of etcd/ca.key");
        assert_eq!(of("front-proxy-ca.key"), b"");
        let other = CertificateKey::generate().unwrap();
        let error = decrypted(&data, &other, true).unwrap_err().to_string();
        assert_eq!(error, "error decoding secret data with provided key: cipher: message authentication failed");
        let missing = decrypted(&encrypted(dir.path(), &key, false).unwrap(), &key, true).unwrap_err().to_string();
        assert!(missing.contains("does not include the required certificate or key - name: etcd-ca.crt"), "{missing}");
    }
}
