//! From a webhook's refusal to the status that a client gets.

use kedge_meta::{ApiStatus, StatusDetails, StatusReason};
use serde_json::Value;

/// The refusal of the webhook `name`: its own code, reason and details, and a text that says who refused.
pub fn denial(name: &str, status: &Value) -> ApiStatus {
    let denied = format!("admission webhook \"{name}\" denied the request");
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0).max(400);
    let reason = serde_json::from_value(status["reason"].clone()).unwrap_or(StatusReason::Unknown);
    let mut denial = ApiStatus::new(code, reason, message);
    denial.details = serde_json::from_value::<StatusDetails>(status["details"].clone()).ok().map(Box::new);
    if reason == StatusReason::Unknown {
        denial.other_reason = Some(text("reason")).filter(|reason| !reason.is_empty()).map(Into::into);
    }
    denial
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_keeps_what_the_webhook_said() {
        let check = |status: Value, code: u16, reason: Value, message: &str| {
            let shown = denial("w.a.io", &status).to_json();
            let message = format!("admission webhook \"w.a.io\" denied the request{message}");
            assert_eq!((&shown["code"], &shown["reason"], &shown["message"]), (&json!(code), &reason, &json!(message)));
        };
        check(Value::Null, 400, Value::Null, " without explanation");
        check(json!({"message": "no"}), 400, Value::Null, ": no");
        check(json!({"reason": "just because"}), 400, json!("just because"), ": just because");
        check(json!({"code": 403, "reason": "Forbidden", "message": "no"}), 403, json!("Forbidden"), ": no");
        check(json!({"code": 200, "status": "Success"}), 400, Value::Null, " without explanation");
        let details = json!({"code": 422, "details": {"causes": [{"message": "m", "field": "f"}]}});
        assert_eq!(denial("w.a.io", &details).to_json()["details"]["causes"][0]["field"], "f");
    }
}
