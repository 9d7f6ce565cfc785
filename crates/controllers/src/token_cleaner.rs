//! The bootstrap token cleaner: deletes bootstrap tokens that have expired.
//!
//! Off by default, as upstream's. Invariant: only Secrets of the bootstrap token type in `kube-system` go.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kedge_client::{Change, Informer, InformerOptions, Queue, object_key};
use kedge_meta::{ObjectKey, parse_time};
use kube::api::{Api, DeleteParams, Preconditions};

use crate::error::unless_gone;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let options = InformerOptions {
        namespace: Some(NAMESPACE.to_owned()),
        field_selector: Some(format!("type={TOKEN_TYPE}")),
        ..InformerOptions::default()
    };
    let secrets = starter.context.informers.select::<Secret>(options);
    starter.wait_for(&secrets);
    let queue = Queue::new();
    starter.enqueue(&secrets, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let controller = TokenCleaner { context: starter.context.clone(), secrets };
    starter.work(Arc::new(controller), queue, 1);
}

struct TokenCleaner {
    context: Context,
    secrets: Informer<Secret>,
}

/// How long a token is valid yet; one whose expiration can't be read has expired.
fn time_left(secret: &Secret, now: Timestamp) -> Option<SignedDuration> {
    if secret.type_.as_deref() != Some(TOKEN_TYPE) {
        return None;
    }
    let expiration = secret.data.as_ref()?.get("expiration")?;
    let expires = std::str::from_utf8(&expiration.0).ok().and_then(parse_time);
    Some(expires.map_or(SignedDuration::ZERO, |expires| expires.duration_since(now)))
}

impl Controller for TokenCleaner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(secret) = self.secrets.get(key) else { return Ok(Next::Done) };
        let Some(left) = time_left(&secret, self.context.now()) else { return Ok(Next::Done) };
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), NAMESPACE);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: secret.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        unless_gone(secrets.delete(&key.name, &parameters).await)?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn tokens_expire() {
        let test = |type_: &str, expiration: Option<&str>, expected: Option<i64>| {
            let data = expiration.map(|text| [("expiration".to_owned(), ByteString(text.as_bytes().to_vec()))].into());
            let secret = Secret { type_: Some(type_.to_owned()), data, ..Secret::default() };
            let left = time_left(&secret, Timestamp::from_second(100).unwrap());
            assert_eq!(left.map(|left| left.as_secs()), expected);
        };
        test(TOKEN_TYPE, Some("1970-01-01T00:02:00Z"), Some(20));
        test(TOKEN_TYPE, Some("1970-01-01T00:01:00Z"), Some(-40));
        test(TOKEN_TYPE, Some("soon"), Some(0));
        test(TOKEN_TYPE, None, None);
        test("Opaque", Some("1970-01-01T00:01:00Z"), None);
    }
}
