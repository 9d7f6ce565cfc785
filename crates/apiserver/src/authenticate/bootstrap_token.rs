//! Bootstrap tokens (`abcdef.0123456789abcdef`): secrets in `kube-system` with which nodes join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_meta::{ApiStatus, UserInfo, parse_time};
use serde_json::Value;

use super::is_equal;
use crate::core::Core;
use crate::object;

/// The user of a bootstrap token; `None` where the text is none, or not a good one.
pub(super) async fn user(core: &Core, token: &str) -> Result<Option<UserInfo>, ApiStatus> {
    let Some((id, secret)) = parts(token) else { return Ok(None) };
    let name = format!("bootstrap-token-{id}");
    let Some((_, object)) = core.object("", "secrets", "kube-system", &name).await? else { return Ok(None) };
    Ok(accept(&object, id, secret, core.clock.now()))
}

fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let good = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && good(id) && good(secret)).then_some((id, secret))
}

fn accept(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Option<UserInfo> {
    let data = |key: &str| {
        let bytes = STANDARD.decode(object::text(object, &["data", key])).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if object::text(object, &["type"]) != "bootstrap.kubernetes.io/token" || object::is_deleting(object) {
        return None;
    }
    let same = is_equal(data("token-secret").as_bytes(), secret.as_bytes());
    if data("token-id") != id || !same || data("usage-bootstrap-authentication") != "true" {
        return None;
    }
    let expiration = data("expiration");
    if !expiration.is_empty() && parse_time(&expiration).is_none_or(|at| at <= now) {
        return None;
    }
    let extra = data("auth-extra-groups");
    let extra = extra.split(',').map(str::trim).filter(|group| group.starts_with("system:bootstrappers:"));
    let groups = std::iter::once("system:bootstrappers").chain(extra);
    Some(UserInfo::authenticated(&format!("system:bootstrap:{id}"), groups))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: (&str, &str), expected: Option<&str>) {
        let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:x,other"});
        data[change.0] = json!(change.1);
        let data: serde_json::Map<_, _> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), json!(STANDARD.encode(v.as_str().unwrap()))))
            .collect();
        let object = json!({"type": "bootstrap.kubernetes.io/token", "data": data});
        let now = parse_time("2026-01-01T00:00:00Z").unwrap();
        let user = accept(&object, "abcdef", "0123456789abcdef", now);
        assert_eq!(user.map(|user| user.groups.join(",")).as_deref(), expected, "{change:?}");
    }

    #[test]
    fn tokens_are_good_as_their_secret_says() {
        let groups = "system:bootstrappers,system:bootstrappers:x,system:authenticated";
        check(("description", "x"), Some(groups));
        check(("expiration", "2027-01-01T00:00:00Z"), Some(groups));
        check(("expiration", "2025-01-01T00:00:00Z"), None);
        check(("token-secret", "0123456789abcdee"), None);
        check(("usage-bootstrap-authentication", "false"), None);
        assert_eq!(parts("abcdef.0123456789abcde"), None);
        assert_eq!(parts("ABCDEF.0123456789abcdef"), None);
    }
}
