//! The token controller: Secrets of type `kubernetes.io/service-account-token` get the token of their account, the bundle
//! that it is used with, and its namespace; they go with their account, and accounts do not name Secrets that are gone.
//!
//! Invariant: a token that a Secret holds is never replaced, and none is issued for an account that is not there.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kedge_auth::{TokenKeys, TokenSubject, legacy_token_claims};
use kedge_client::{Change, Informer, InformerOptions, Queue};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{ReconcileError, is_conflict, unless_gone};
use crate::root_ca::follow_bundle;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

pub(crate) const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const BUNDLE: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// Starts the controller, where there is a key to sign with.
pub(crate) fn start(mut starter: Starter<'_>) {
    let Some(keys) = starter.context.token_keys.clone() else { return };
    let accounts = starter.informer::<ServiceAccount>();
    let secrets = starter.context.informers.select::<Secret>(token_secrets());
    starter.wait_for(&secrets);
    let queue = Queue::new();
    let fed = queue.clone();
    starter.feed(&secrets, move |change| fed.add(Key::of(change.object())));
    let (fed, all) = (queue.clone(), secrets.clone());
    starter.feed(&accounts, move |change| secrets_to_look_at(change, &all).into_iter().for_each(|key| fed.add(key)));
    let (again, all) = (queue.clone(), secrets.clone());
    let look_again = move || all.list().iter().for_each(|secret| again.add(Key::of(secret)));
    starter.spawn(follow_bundle(starter.context.clone(), look_again));
    let workers = starter.context.config.concurrency;
    let controller = Tokens { context: starter.context.clone(), keys, accounts, secrets };
    starter.work(Arc::new(controller), queue, workers);
}

/// Which Secrets hold tokens: others may be many and large, and are nobody's business here.
pub(crate) fn token_secrets() -> InformerOptions {
    InformerOptions { field_selector: Some(format!("type={TOKEN_TYPE}")), ..InformerOptions::default() }
}

/// A Secret, with the account that it named: once it is gone, nobody else tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    secret: ObjectKey,
    account: String,
}

impl Key {
    fn of(secret: &Secret) -> Self {
        Self {
            secret: kedge_client::object_key(secret),
            account: annotation(secret, ACCOUNT_NAME).unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.secret, self.account)
    }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str).filter(|text| !text.is_empty())
}

/// The Secrets of an account that is gone, or is another one now.
fn secrets_to_look_at(change: &Change<ServiceAccount>, secrets: &Informer<Secret>) -> Vec<Key> {
    let matters = match change {
        Change::Added(_) => false,
        Change::Updated { old, new } => old.metadata.uid != new.metadata.uid,
        Change::Deleted(_) => true,
    };
    if !matters {
        return Vec::new();
    }
    let metadata = &change.object().metadata;
    let own = secrets.in_namespace(metadata.namespace.as_deref().unwrap_or_default());
    let is_of = |secret: &&Arc<Secret>| annotation(secret, ACCOUNT_NAME) == metadata.name.as_deref();
    own.iter().filter(is_of).map(|secret| Key::of(secret)).collect()
}

/// The account that a Secret names: by its uid too, where the Secret has one.
pub(crate) fn account_of(secret: &Secret, accounts: &Informer<ServiceAccount>) -> Option<Arc<ServiceAccount>> {
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let account = accounts.get(&ObjectKey::new(namespace, annotation(secret, ACCOUNT_NAME)?))?;
    is_named(secret, &account).then_some(account)
}

fn is_named(secret: &Secret, account: &ServiceAccount) -> bool {
    annotation(secret, ACCOUNT_UID).is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid))
}

/// Whether an account lists a Secret: those that were made with accounts are.
pub(crate) fn lists(account: &ServiceAccount, secret: &str) -> bool {
    account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(secret))
}

struct Tokens {
    context: Context,
    keys: tokio::sync::watch::Receiver<Arc<TokenKeys>>,
    accounts: Informer<ServiceAccount>,
    secrets: Informer<Secret>,
}

impl Controller for Tokens {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Outcome {
        if key.account.is_empty() {
            return Ok(Next::Done);
        }
        match self.secrets.get(&key.secret) {
            None => self.forget(key).await,
            Some(secret) if secret.metadata.deletion_timestamp.is_some() => Ok(Next::Done),
            Some(secret) => match self.account(&secret).await? {
                None => self.delete(&secret, &key.secret).await,
                Some(account) => self.fill(&secret, &account, &key.secret).await,
            },
        }
    }
}

impl Tokens {
    /// The account of a Secret; asked for where the cache has none, as it may have come just now.
    async fn account(&self, secret: &Secret) -> Result<Option<Arc<ServiceAccount>>, ReconcileError> {
        if let Some(account) = account_of(secret, &self.accounts) {
            return Ok(Some(account));
        }
        let (namespace, name) = (secret.metadata.namespace.as_deref(), annotation(secret, ACCOUNT_NAME));
        let accounts = Api::<ServiceAccount>::namespaced(self.context.client.clone(), namespace.unwrap_or_default());
        let found = accounts.get_opt(name.unwrap_or_default()).await?;
        Ok(found.filter(|account| is_named(secret, account)).map(Arc::new))
    }

    fn secrets_of(&self, key: &ObjectKey) -> Api<Secret> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    async fn delete(&self, secret: &Secret, key: &ObjectKey) -> Outcome {
        let uid = secret.metadata.uid.clone();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match unless_gone(self.secrets_of(key).delete(&key.name, &parameters).await) {
            // A Secret of that name that is another one now.
            Err(error) if !is_conflict(&error) => Err(error.into()),
            _ => Ok(Next::Done),
        }
    }

    async fn fill(&self, secret: &Secret, account: &ServiceAccount, key: &ObjectKey) -> Outcome {
        let bundle = self.context.config.root_ca_pem.borrow().clone();
        let keys = self.keys.borrow().clone();
        let Some(filled) = plan(secret, account, &bundle, &keys) else { return Ok(Next::Done) };
        match unless_gone(self.secrets_of(key).replace(&key.name, &PostParams::default(), &filled).await) {
            // The newer one is on its way here.
            Err(error) if !is_conflict(&error) => Err(error.into()),
            _ => Ok(Next::Done),
        }
    }

    /// Takes a Secret that is gone from its account's list.
    async fn forget(&self, key: &Key) -> Outcome {
        let Some(account) = self.accounts.get(&ObjectKey::new(key.secret.namespace.clone(), key.account.clone()))
        else {
            return Ok(Next::Done);
        };
        if !lists(&account, &key.secret.name) {
            return Ok(Next::Done);
        }
        let mut changed = (*account).clone();
        if let Some(references) = &mut changed.secrets {
            references.retain(|reference| reference.name.as_ref() != Some(&key.secret.name));
        }
        let accounts = Api::<ServiceAccount>::namespaced(self.context.client.clone(), &key.secret.namespace);
        unless_gone(accounts.replace(&key.account, &PostParams::default(), &changed).await)?;
        Ok(Next::Done)
    }
}

/// The Secret with everything that it lacks; `None` where it lacks nothing.
fn plan(secret: &Secret, account: &ServiceAccount, bundle: &str, keys: &TokenKeys) -> Option<Secret> {
    let data = secret.data.clone().unwrap_or_default();
    let lacks = |key: &str| data.get(key).is_none_or(|value| value.0.is_empty());
    let mut filled = data.clone();
    if !bundle.is_empty() && data.get(BUNDLE).is_none_or(|value| value.0 != bundle.as_bytes()) {
        filled.insert(BUNDLE.to_owned(), ByteString(bundle.as_bytes().to_vec()));
    }
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let name = account.metadata.name.clone().unwrap_or_default();
    let uid = account.metadata.uid.clone().unwrap_or_default();
    if lacks(NAMESPACE) {
        filled.insert(NAMESPACE.to_owned(), ByteString(namespace.clone().into_bytes()));
    }
    if lacks(TOKEN) {
        let subject = TokenSubject { name: name.clone(), uid: uid.clone() };
        let own_name = secret.metadata.name.as_deref().unwrap_or_default();
        let token = keys.issue(&legacy_token_claims(&namespace, &subject, own_name));
        filled.insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
    }
    if filled == data {
        return None;
    }
    let mut secret = Secret { data: Some(filled), ..secret.clone() };
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_NAME.to_owned(), name);
    annotations.insert(ACCOUNT_UID.to_owned(), uid);
    Some(secret)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use kube::api::ObjectMeta;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    use super::*;

    fn keys() -> TokenKeys {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        TokenKeys::from_private_pem(&format!("-----BEGIN PRIVATE KEY-----\n{}\n", STANDARD.encode(der.as_ref())))
            .unwrap()
    }

    fn account(uid: &str) -> ServiceAccount {
        let metadata = ObjectMeta {
            name: Some("robot".to_owned()),
            namespace: Some("team".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        ServiceAccount { metadata, ..ServiceAccount::default() }
    }

    fn secret(data: &[(&str, &str)]) -> Secret {
        let named = BTreeMap::from([(ACCOUNT_NAME.to_owned(), "robot".to_owned())]);
        let metadata = ObjectMeta {
            name: Some("robot-token".to_owned()),
            namespace: Some("team".to_owned()),
            annotations: Some(named),
            ..ObjectMeta::default()
        };
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { metadata, data: Some(data.collect()), type_: Some(TOKEN_TYPE.to_owned()), ..Secret::default() }
    }

    #[test]
    fn a_secret_gets_what_it_lacks_and_keeps_its_token() {
        let (keys, robot) = (keys(), account("1"));
        let filled = plan(&secret(&[]), &robot, "PEM", &keys).unwrap();
        let data = filled.data.clone().unwrap();
        assert_eq!((data[BUNDLE].0.as_slice(), data[NAMESPACE].0.as_slice()), (&b"PEM"[..], &b"team"[..]));
        let claims = keys.verify_legacy(std::str::from_utf8(&data[TOKEN].0).unwrap()).unwrap();
        assert_eq!((claims.secret.as_str(), claims.service_account.uid.as_str()), ("robot-token", "1"));
        assert_eq!(annotation(&filled, ACCOUNT_UID), Some("1"));
        assert_eq!(plan(&filled, &robot, "PEM", &keys), None);
        let renewed = plan(&filled, &robot, "NEW", &keys).unwrap().data.unwrap();
        assert_eq!((renewed[BUNDLE].0.as_slice(), &renewed[TOKEN]), (&b"NEW"[..], &data[TOKEN]));
        // Without a bundle, what somebody wrote stays.
        let own = plan(&secret(&[(BUNDLE, "own"), ("more", "x")]), &robot, "", &keys).unwrap().data.unwrap();
        assert_eq!((own[BUNDLE].0.as_slice(), own["more"].0.as_slice()), (&b"own"[..], &b"x"[..]));
    }

    #[test]
    fn an_account_of_the_same_name_is_another_one() {
        let filled = plan(&secret(&[]), &account("1"), "PEM", &keys()).unwrap();
        let check = |secret: &Secret, uid: &str, expected: bool| {
            let accounts = Informer::fixed([account(uid)]);
            assert_eq!(account_of(secret, &accounts).is_some(), expected);
        };
        check(&filled, "1", true);
        check(&filled, "2", false);
        check(&secret(&[]), "2", true);
    }

    #[test]
    fn the_secrets_of_an_account_that_went_are_looked_at() {
        let secrets = Informer::fixed([secret(&[])]);
        let looked_at = |change: &Change<ServiceAccount>| secrets_to_look_at(change, &secrets).len();
        let (old, new) = (Arc::new(account("1")), Arc::new(account("2")));
        assert_eq!(looked_at(&Change::Deleted(old.clone())), 1);
        assert_eq!(looked_at(&Change::Updated { old: old.clone(), new }), 1);
        assert_eq!(looked_at(&Change::Added(old)), 0);
    }
}
