//! The cleaner of tokens in Secrets: those that were made with their account and that nobody has used for a long time are
//! marked, are refused from then on, and go after the same time once more.
//!
//! Invariant: a token that somebody made on purpose, that a pod names, or whose use is not known for long enough, stays.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kedge_client::{Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::error::{ReconcileError, is_conflict, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::service_account_token::{TOKEN_TYPE, account_of, lists, token_secrets};

/// How often everything is looked at, or more often where tokens live shorter than that.
// DIVERGES: once a day upstream, whatever the period.
const ROUND: Duration = Duration::from_secs(24 * 3600);
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const TRACKING_NAMESPACE: &str = "kube-system";
const DATE: &str = "%Y-%m-%d";

/// Starts the controller: it looks once a day at least.
pub(crate) fn start(mut starter: Starter<'_>) {
    let accounts = starter.informer::<ServiceAccount>();
    let pods = starter.informer::<Pod>();
    let secrets = starter.context.informers.select::<Secret>(token_secrets());
    starter.wait_for(&secrets);
    let queue = Queue::new();
    queue.add(ObjectKey::cluster("round"));
    let controller = Cleaner { context: starter.context.clone(), accounts, pods, secrets };
    starter.work(Arc::new(controller), queue, 1);
}

struct Cleaner {
    context: Context,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
    secrets: Informer<Secret>,
}

/// What becomes of a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    /// Marked as invalid from this date on.
    Mark(String),
    Delete,
}

impl Controller for Cleaner {
    type Key = ObjectKey;

    async fn reconcile(&self, _: &ObjectKey) -> Outcome {
        let now = self.context.now();
        let next = Next::After(ROUND.min(self.context.config.legacy_token_clean_up_period));
        let Some(oldest) = self.tracked_long_enough(now).await? else { return Ok(next) };
        for secret in self.secrets.list() {
            match plan(&secret, now, oldest) {
                Plan::Keep => {}
                _ if !self.is_left_over(&secret)? => {}
                Plan::Mark(date) => self.mark(&secret, &date).await?,
                Plan::Delete => self.delete(&secret).await?,
            }
        }
        Ok(next)
    }
}

impl Cleaner {
    /// The time before which a token must have been used last to go; `None` while it is not known for that long who used
    /// what.
    async fn tracked_long_enough(&self, now: Timestamp) -> Result<Option<Timestamp>, ReconcileError> {
        let maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), TRACKING_NAMESPACE);
        let tracking = maps.get_opt(TRACKING).await?.unwrap_or_default();
        let since = tracking.data.as_ref().and_then(|data| data.get("since"));
        let Some(since) = since.and_then(|since| Date::strptime(DATE, since).ok()) else { return Ok(None) };
        Ok(oldest_kept(since, now, self.context.config.legacy_token_clean_up_period))
    }

    /// Whether a token was made with its account, and no pod names it.
    fn is_left_over(&self, secret: &Secret) -> Result<bool, ReconcileError> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        if !account_of(secret, &self.accounts).is_some_and(|account| lists(&account, name)) {
            return Ok(false);
        }
        for pod in self.pods.in_namespace(secret.metadata.namespace.as_deref().unwrap_or_default()) {
            let pod = serde_json::to_value(&*pod).map_err(|error| ReconcileError::Object(error.to_string()))?;
            if kedge_auth::secrets_of_pod(&pod).iter().any(|named| named == name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn mark(&self, secret: &Secret, date: &str) -> Result<(), ReconcileError> {
        let key = object_key(secret);
        tracing::info!(secret = %key, date, "a token that nobody uses is marked as invalid");
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": secret.metadata.uid, "labels": {INVALID_SINCE: date}}});
        tell(unless_gone(secrets.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await))
    }

    async fn delete(&self, secret: &Secret) -> Result<(), ReconcileError> {
        let key = object_key(secret);
        tracing::info!(secret = %key, "a token that nobody uses is deleted");
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), &key.namespace);
        // Whoever takes the mark off, or uses the token, is in time until the last moment.
        let resource_version = secret.metadata.resource_version.clone();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: None, resource_version }),
            ..DeleteParams::default()
        };
        tell(unless_gone(secrets.delete(&key.name, &parameters).await))
    }
}

/// A Secret that changed meanwhile is looked at in the next round.
fn tell<T>(result: Result<T, kube::Error>) -> Result<(), ReconcileError> {
    match result {
        Err(error) if !is_conflict(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// `period` ago, if uses have been noted for that long: from the day after the one on which that began.
fn oldest_kept(since: Date, now: Timestamp, period: Duration) -> Option<Timestamp> {
    let period = SignedDuration::try_from(period).ok()?;
    let oldest = now.checked_sub(period).ok()?;
    let tracked = since.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    (oldest >= tracked).then_some(oldest)
}

/// By dates alone; what else keeps a Secret is costlier to find out.
fn plan(secret: &Secret, now: Timestamp, oldest: Timestamp) -> Plan {
    let metadata = &secret.metadata;
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    let is_old = created.is_some_and(|created| created < oldest);
    if secret.type_.as_deref() != Some(TOKEN_TYPE) || !is_old || metadata.deletion_timestamp.is_some() {
        return Plan::Keep;
    }
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let date = |text: &String| Date::strptime(DATE, text).ok();
    let oldest = oldest.to_zoned(jiff::tz::TimeZone::UTC).date();
    if let Some(used) = label(LAST_USED)
        // Of a date that is none, nothing is known.
        && date(used).is_none_or(|used| used >= oldest)
    {
        return Plan::Keep;
    }
    match label(INVALID_SINCE).and_then(date) {
        None => Plan::Mark(now.strftime(DATE).to_string()),
        Some(since) if since >= oldest => Plan::Keep,
        Some(_) => Plan::Delete,
    }
}

#[cfg(test)]
mod tests {
    use kedge_meta::parse_time;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn time(text: &str) -> Timestamp {
        parse_time(text).unwrap()
    }

    #[test]
    fn tokens_are_marked_and_go_by_their_dates() {
        let check = |created: &str, labels: &[(&str, &str)], expected: Plan| {
            let secret: Secret = serde_json::from_value(json!({
                "metadata": {"creationTimestamp": created,
                    "labels": labels.iter().copied().collect::<std::collections::BTreeMap<_, _>>()},
                "type": TOKEN_TYPE,
            }))
            .unwrap();
            let (now, oldest) = (time("2026-06-15T12:00:00Z"), time("2025-06-15T12:00:00Z"));
            assert_eq!(plan(&secret, now, oldest), expected, "{created} {labels:?}");
        };
        let (old, today) = ("2024-01-01T00:00:00Z", || Plan::Mark("2026-06-15".to_owned()));
        check(old, &[], today());
        check("2025-06-15T12:00:00Z", &[], Plan::Keep);
        check(old, &[(LAST_USED, "2025-06-14")], today());
        check(old, &[(LAST_USED, "2025-06-15")], Plan::Keep);
        check(old, &[(LAST_USED, "yesterday")], Plan::Keep);
        check(old, &[(INVALID_SINCE, "once")], today());
        check(old, &[(INVALID_SINCE, "2025-06-15")], Plan::Keep);
        check(old, &[(INVALID_SINCE, "2025-06-14")], Plan::Delete);
        check(old, &[(INVALID_SINCE, "2025-06-14"), (LAST_USED, "2026-01-01")], Plan::Keep);
    }

    #[test]
    fn nothing_goes_before_uses_are_noted_for_long_enough() {
        let check = |now: &str, expected: Option<&str>| {
            let oldest = oldest_kept(jiff::civil::date(2025, 1, 1), time(now), YEAR);
            assert_eq!(oldest, expected.map(time), "{now}");
        };
        check("2026-01-01T23:59:59Z", None);
        check("2026-01-02T00:00:00Z", Some("2025-01-02T00:00:00Z"));
    }
}
