//! A cluster's next authority on its way to further control planes: in a Secret, encrypted, for two hours.
//!
//! Invariant: what is taken out of it is a certificate with its own key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kedge_client::Client;
use kedge_pki::Identity;
use kube::api::{Api, DeleteParams};

use crate::certificate_key::CertificateKey;
use crate::certs_secret::{NAMESPACE, store_for_two_hours};
use crate::error::BootstrapError;

const NAME: &str = "kedge-next-authority";
const DESCRIPTION: &str = "Proxy for managing TTL for the kedge-next-authority secret";
const CERTIFICATE: &str = "ca-next.crt";
const KEY: &str = "ca-next.key";

/// Puts it into the cluster for two hours.
pub async fn upload_next_authority(
    client: &Client,
    next: &Identity,
    key: &CertificateKey,
) -> Result<(), BootstrapError> {
    store_for_two_hours(client, NAME, DESCRIPTION, sealed(next, key)?).await
}

/// Gets it out of the cluster.
pub async fn download_next_authority(client: &Client, key: &CertificateKey) -> Result<Identity, BootstrapError> {
    let secret = secrets(client).get_opt(NAME).await.map_err(BootstrapError::api("error downloading the secret"))?;
    let data = secret.and_then(|secret| secret.data).ok_or_else(|| {
        BootstrapError::Certs(format!(
            "Secret {NAME:?} was not found in the {NAMESPACE:?} Namespace. This Secret might have expired: run `kedge certs \
             rotate-ca upload` on the control plane where the rotation was begun"
        ))
    })?;
    opened(&data, key)
}

/// Removes it from the cluster; succeeds where it is gone already.
pub async fn remove_next_authority(client: &Client) -> Result<(), BootstrapError> {
    match secrets(client).delete(NAME, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(BootstrapError::api("cannot remove the Secret with the next authority")(error)),
    }
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn sealed(next: &Identity, key: &CertificateKey) -> Result<BTreeMap<String, ByteString>, BootstrapError> {
    let parts = [(CERTIFICATE, &next.certificate_pem), (KEY, &next.key_pem)];
    parts.into_iter().map(|(name, text)| Ok((name.to_owned(), ByteString(key.encrypt(text.as_bytes())?)))).collect()
}

fn opened(data: &BTreeMap<String, ByteString>, key: &CertificateKey) -> Result<Identity, BootstrapError> {
    let part = |name: &str| {
        let sealed = data.get(name);
        let sealed = sealed.ok_or_else(|| BootstrapError::Certs(format!("the Secret {NAME:?} has no {name}")))?;
        let wrong = |why: String| BootstrapError::Certs(format!("error decoding secret data with provided key: {why}"));
        let content = key.decrypt(&sealed.0).map_err(|error| wrong(error.to_string()))?;
        String::from_utf8(content).map_err(|error| wrong(error.to_string()))
    };
    let next = Identity { certificate_pem: part(CERTIFICATE)?, key_pem: part(KEY)? };
    next.check()
        .map_err(|why| BootstrapError::Certs(format!("what the Secret {NAME:?} holds cannot be used: {why}")))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_goes_through_the_secret_and_only_the_key_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let authority = kedge_pki::CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let key_pem = std::fs::read_to_string(dir.path().join("ca.key")).unwrap();
        let next = Identity { certificate_pem: authority.certificate_pem().to_owned(), key_pem };
        let key = CertificateKey::generate().unwrap();
        let mut data = sealed(&next, &key).unwrap();
        assert!(!String::from_utf8_lossy(&data[KEY].0).contains("PRIVATE"));
        assert_eq!(opened(&data, &key).unwrap().key_pem, next.key_pem);
        let other = CertificateKey::generate().unwrap();
        assert!(opened(&data, &other).unwrap_err().to_string().contains("message authentication failed"));
        // The key of somebody else's certificate.
        let foreign =
            sealed(&Identity { certificate_pem: next.certificate_pem.clone(), key_pem: "x".to_owned() }, &key);
        data.extend(foreign.unwrap());
        assert!(opened(&data, &key).unwrap_err().to_string().contains("cannot be used"));
        data.remove(KEY);
        assert!(opened(&data, &key).unwrap_err().to_string().contains("has no ca-next.key"));
    }
}
