//! Tokens out of Secrets: good while account and Secret are there and the Secret holds the very token.
//!
//! Invariant: using one leaves its date on the Secret, by which the cleaner knows what nobody needs any more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kedge_auth::LegacyTokenClaims;
use kedge_meta::{ApiStatus, UserInfo};
use kedge_store::{Condition, Expect, Record, Transaction, Write};
use serde_json::Value;

use super::is_equal;
use crate::admission::Notes;
use crate::core::Core;
use crate::metrics::Token;
use crate::{convert, object, write};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const AUTO_GENERATED: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of \
     auto-generated secret-based tokens.";
/// The name under which the date is noted in managed fields.
const MANAGER: &str = "kube-apiserver";

/// The user of a token out of a Secret; `None` where it is not good (any more).
pub(super) async fn user(
    core: &Core,
    token: &str,
    audiences: &[String],
    notes: &Notes,
) -> Result<Option<(UserInfo, Vec<String>)>, ApiStatus> {
    let claims = core.token_keys.load().verify_legacy(token);
    let claims = claims.inspect_err(|error| tracing::debug!(%error, "a bearer token is refused"));
    let Ok(claims) = claims else { return Ok(None) };
    let count = |token| core.metrics.tokens.used(token);
    count(Token::Legacy);
    // It names no audiences: it is for this API, and for nobody else.
    let own = core.config.audiences();
    let meant_for: Vec<String> = own.into_iter().filter(|audience| audiences.contains(audience)).collect();
    if meant_for.is_empty() {
        return Ok(None);
    }
    let namespace = claims.namespace.as_str();
    let secret = core.object("", "secrets", namespace, &claims.secret).await?;
    let account = core.object("", "serviceaccounts", namespace, &claims.service_account.name).await?;
    let (Some((record, secret)), Some((_, account))) = (secret, account) else { return Ok(None) };
    if !holds(&secret, token) || !is_account_of(&account, &claims) {
        return Ok(None);
    }
    note_use(core, &record, secret.clone()).await;
    if let Some(since) = object::label(&secret, INVALID_SINCE).filter(|since| !since.is_empty()) {
        tracing::debug!(namespace, secret = claims.secret, since, "a token that was marked invalid is refused");
        count(Token::LegacyInvalid);
        return Ok(None);
    }
    let mut names = object::list(&account, &["secrets"]).iter().map(|reference| object::text(reference, &["name"]));
    if names.any(|name| name == claims.secret) {
        notes.warn(AUTO_GENERATED);
        count(Token::LegacyAuto);
    } else {
        count(Token::LegacyManual);
    }
    Ok(Some((claims.user(), meant_for)))
}

fn holds(secret: &Value, token: &str) -> bool {
    let held = STANDARD.decode(object::text(secret, &["data", "token"])).unwrap_or_default();
    !object::is_deleting(secret) && is_equal(&held, token.as_bytes())
}

fn is_account_of(account: &Value, claims: &LegacyTokenClaims) -> bool {
    !object::is_deleting(account) && object::meta(account, "uid") == claims.service_account.uid
}

/// Today's date as a label, unless the Secret has it, or tomorrow's from a server whose clock is ahead.
fn plan_use(secret: &Value, now: Timestamp) -> Option<String> {
    let date = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let (today, tomorrow) = (date(now), date(now + SignedDuration::from_hours(24)));
    let noted = object::label(secret, LAST_USED).unwrap_or_default();
    (noted != today && noted != tomorrow).then_some(today)
}

/// Best effort: whoever asks is who they are, whether that can be written down or not.
async fn note_use(core: &Core, record: &Record, mut secret: Value) {
    let now = core.clock.now();
    let Some(today) = plan_use(&secret, now) else { return };
    let registry = core.registry.load();
    let Some(resource) = registry.storage("", "secrets") else { return };
    let live = secret.clone();
    object::child_mut(&mut secret["metadata"], "labels").insert(LAST_USED.to_owned(), today.into());
    write::note_manager(resource, "", Some(&live), &mut secret, MANAGER, now);
    let key = record.key.clone();
    let transaction = Transaction {
        conditions: vec![Condition { key: key.clone(), expect: Expect::Modified(record.modified) }],
        writes: vec![Write::Put { key, value: convert::own_template(resource, &secret), ttl: None }],
        ..Transaction::default()
    };
    // A conflict is the next use's to mend.
    if let Err(error) = core.store.commit(transaction).await {
        tracing::debug!(%error, "the use of a token could not be noted on its Secret");
    }
}

#[cfg(test)]
mod tests {
    use kedge_meta::parse_time;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let now = parse_time("2026-01-02T03:04:05Z").unwrap();
        for (noted, expected) in [
            (json!(null), Some("2026-01-02")),
            (json!("2026-01-01"), Some("2026-01-02")),
            (json!("2026-01-02"), None),
            (json!("2026-01-03"), None),
            (json!("2026-01-04"), Some("2026-01-02")),
        ] {
            let secret = json!({"metadata": {"labels": {LAST_USED: noted}}});
            assert_eq!(plan_use(&secret, now).as_deref(), expected, "{secret}");
        }
    }
}
