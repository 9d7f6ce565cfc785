//! The bootstrap signer: keeps a signature by each bootstrap token in the ConfigMap `cluster-info`, by which whoever knows a
//! token can trust what the ConfigMap says.
//!
//! Off by default, as upstream's. Invariant: a token that has ended, or is not for signing, has no signature.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kedge_client::{Informer, InformerOptions, Queue};
use kedge_meta::{ObjectKey, parse_time};
use kube::api::{Api, PostParams};

use crate::error::{is_conflict, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
const TOKEN_NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
const TOKEN_PREFIX: &str = "bootstrap-token-";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let select = |namespace: &str, fields: String| InformerOptions {
        namespace: Some(namespace.to_owned()),
        field_selector: Some(fields),
        ..InformerOptions::default()
    };
    let informers = starter.context.informers.clone();
    let secrets = informers.select::<Secret>(select(TOKEN_NAMESPACE, format!("type={TOKEN_TYPE}")));
    let config_maps = informers.select::<ConfigMap>(select(NAMESPACE, format!("metadata.name={NAME}")));
    starter.wait_for(&secrets);
    starter.wait_for(&config_maps);
    let queue = Queue::new();
    let key = || vec![ObjectKey::new(NAMESPACE, NAME)];
    starter.enqueue(&secrets, &queue, move |_| key());
    starter.enqueue(&config_maps, &queue, move |_| key());
    let controller = BootstrapSigner { context: starter.context.clone(), secrets, config_maps };
    starter.work(Arc::new(controller), queue, 1);
}

struct BootstrapSigner {
    context: Context,
    secrets: Informer<Secret>,
    config_maps: Informer<ConfigMap>,
}

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

/// Id and secret of a token that may sign now.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, value) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = secret.metadata.name.as_deref()?.strip_prefix(TOKEN_PREFIX)?;
    let is_good = secret.type_.as_deref() == Some(TOKEN_TYPE)
        && !id.is_empty()
        && named == id
        && !value.is_empty()
        && text(secret, "usage-bootstrap-signing") == "true"
        && !has_expired(secret, now);
    is_good.then_some((id, value))
}

fn has_expired(secret: &Secret, now: Timestamp) -> bool {
    let expiration = text(secret, "expiration");
    !expiration.is_empty() && parse_time(expiration).is_none_or(|expires| expires <= now)
}

/// The ConfigMap's data as it should be; `None` where there is nothing to sign, or nothing to change.
fn plan(current: &ConfigMap, tokens: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let data = current.data.as_ref()?;
    let content = data.get(CONTENT)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, secret) in tokens {
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), kedge_auth::detached_signature(content, id, secret));
    }
    (wanted != *data).then_some(wanted)
}

impl Controller for BootstrapSigner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(current) = self.config_maps.get(key) else { return Ok(Next::Done) };
        let now = self.context.now();
        let secrets = self.secrets.list();
        let tokens: Vec<(&str, &str)> = secrets.iter().filter_map(|secret| signing_token(secret, now)).collect();
        if let Some(data) = plan(&current, &tokens) {
            let changed = ConfigMap { data: Some(data), ..(*current).clone() };
            let config_maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), NAMESPACE);
            match unless_gone(config_maps.replace(NAME, &PostParams::default(), &changed).await) {
                Err(error) if !is_conflict(&error) => return Err(error.into()),
                // The newer one is on its way here.
                _ => {}
            }
        }
        Ok(next_end(&secrets, now).map_or(Next::Done, Next::After))
    }
}

/// When the next token ends whose signature has to go.
fn next_end(secrets: &[Arc<Secret>], now: Timestamp) -> Option<Duration> {
    let left = |secret: &Arc<Secret>| {
        signing_token(secret, now)?;
        Duration::try_from(parse_time(text(secret, "expiration"))?.duration_since(now)).ok()
    };
    secrets.iter().filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use kube::api::ObjectMeta;

    fn token(id: &str, changes: &[(&str, &str)]) -> Secret {
        let mut data = BTreeMap::from([
            ("token-id".to_owned(), ByteString(id.as_bytes().to_vec())),
            ("token-secret".to_owned(), ByteString(b"0123456789abcdef".to_vec())),
            ("usage-bootstrap-signing".to_owned(), ByteString(b"true".to_vec())),
        ]);
        for (key, value) in changes {
            data.insert((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        let name = Some(format!("{TOKEN_PREFIX}{id}"));
        Secret {
            metadata: ObjectMeta { name, ..ObjectMeta::default() },
            type_: Some(TOKEN_TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }

    #[test]
    fn tokens_sign_while_they_are_good_for_it() {
        let now = parse_time("2026-01-01T00:00:00Z").unwrap();
        let test = |changes: &[(&str, &str)], expected: bool| {
            assert_eq!(signing_token(&token("abcdef", changes), now).is_some(), expected, "{changes:?}");
        };
        test(&[], true);
        test(&[("expiration", "2026-01-02T00:00:00Z")], true);
        test(&[("expiration", "2025-12-31T00:00:00Z")], false);
        test(&[("expiration", "soon")], false);
        test(&[("token-id", "bcdefg")], false);
        test(&[("token-secret", "")], false);
        test(&[("usage-bootstrap-signing", "false")], false);
        let ends =
            [Arc::new(token("abcdef", &[("expiration", "2026-01-01T01:00:00Z")])), Arc::new(token("bcdefg", &[]))];
        assert_eq!(next_end(&ends, now), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn signatures_come_and_go_with_their_tokens() {
        let map = |data: &[(&str, &str)]| ConfigMap {
            data: Some(data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            ..ConfigMap::default()
        };
        let tokens = [("abcdef", "0123456789abcdef")];
        let signed =
            plan(&map(&[("kubeconfig", "x"), ("other", "kept"), ("jws-kubeconfig-gone00", "y")]), &tokens).unwrap();
        let signature = kedge_auth::detached_signature("x", "abcdef", "0123456789abcdef");
        assert_eq!(signed["jws-kubeconfig-abcdef"], signature);
        assert_eq!(signed.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        assert_eq!(plan(&ConfigMap { data: Some(signed), ..ConfigMap::default() }, &tokens), None);
        assert_eq!(plan(&map(&[("other", "x")]), &tokens), None);
    }
}
