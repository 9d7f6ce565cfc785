//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, at_mut, fill, int, is_set, items, items_mut, text};

/// Of mutatingwebhookconfigurations, and of validatingwebhookconfigurations.
pub(super) struct WebhookConfiguration {
    /// Whether its webhooks may change objects.
    pub(super) mutating: bool,
}

const COLUMNS: &[Column] = &[NAME, column("Webhooks", "integer", "How many webhooks it has"), AGE];

impl Strategy for WebhookConfiguration {
    fn has_generation(&self) -> bool {
        true
    }

    fn generation_fields(&self) -> &[&str] {
        &["webhooks"]
    }

    fn default(&self, object: &mut Value) {
        for webhook in items_mut(object, &["webhooks"]) {
            fill(webhook, "failurePolicy", "Fail");
            fill(webhook, "matchPolicy", "Equivalent");
            fill(webhook, "namespaceSelector", json!({}));
            fill(webhook, "objectSelector", json!({}));
            fill(webhook, "timeoutSeconds", 10);
            if self.mutating {
                fill(webhook, "reinvocationPolicy", "Never");
            }
            items_mut(webhook, &["rules"]).iter_mut().for_each(|rule| fill(rule, "scope", "*"));
            if let Some(service) = at_mut(webhook, &["clientConfig", "service"]) {
                fill(service, "port", 443);
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let webhooks = items(object, &["webhooks"]);
        for (index, webhook) in webhooks.iter().enumerate() {
            let list = Path::root("webhooks");
            let path = list.index(index);
            let own = text(webhook, &["name"]);
            webhook_errors(webhook, &path, errors);
            if webhooks[..index].iter().any(|earlier| text(earlier, &["name"]) == own) {
                path.child("name").duplicate(errors, own);
            }
            if let (true, Some(policy)) = (self.mutating, at(webhook, &["reinvocationPolicy"]).and_then(Value::as_str))
            {
                path.child("reinvocationPolicy").one_of(errors, policy, &["IfNeeded", "Never"]);
            }
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(items(object, &["webhooks"]).len()), age(object, now)]
    }
}

fn webhook_errors(webhook: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let own = text(webhook, &["name"]);
    if own.is_empty() {
        path.child("name").required(errors, "");
    } else {
        let mut wrong = formats::subdomain(own);
        if wrong.is_empty() && own.split('.').count() < 3 {
            wrong.push("should be a domain with at least three segments separated by dots".to_owned());
        }
        path.child("name").check(errors, own, wrong);
    }
    if !is_set(webhook, &["admissionReviewVersions"]) {
        path.child("admissionReviewVersions").required(errors, "must specify one of v1, v1beta1");
    }
    for (index, rule) in items(webhook, &["rules"]).iter().enumerate() {
        let list = path.child("rules");
        let path = list.index(index);
        for field in ["apiGroups", "apiVersions", "resources", "operations"] {
            if !is_set(rule, &[field]) {
                path.child(field).required(errors, "");
            }
        }
    }
    choices(webhook, path, errors);
    if let Some(seconds) = int(webhook, &["timeoutSeconds"]).filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        path.child("timeoutSeconds").invalid(errors, seconds, why);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = at(webhook, &[field]) {
            label_selector_errors(selector, &path.child(field), errors);
        }
    }
    client_config(&webhook["clientConfig"], &path.child("clientConfig"), errors);
}

fn choices(webhook: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    type Choice<'a> = (&'a str, &'a [&'a str], bool);
    const CHOICES: &[Choice<'_>] = &[
        ("failurePolicy", &["Fail", "Ignore"], false),
        ("matchPolicy", &["Equivalent", "Exact"], false),
        ("sideEffects", &["None", "NoneOnDryRun"], true),
    ];
    for (field, choices, required) in CHOICES {
        let value = text(webhook, &[field]);
        match (value, required) {
            ("", true) => path.child(field).required(errors, "must specify one of None, NoneOnDryRun"),
            ("", false) => {}
            _ => path.child(field).one_of(errors, value, choices),
        }
    }
}

fn client_config(config: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (at(config, &["url"]).and_then(Value::as_str), at(config, &["service"])) {
        (Some(url), None) => {
            if !url.starts_with("https://") {
                path.child("url").invalid(
                    errors,
                    url,
                    "'https' is the only allowed URL scheme; desired format: https://host[/path]",
                );
            }
        }
        (None, Some(service)) => {
            let path = path.child("service");
            for field in ["name", "namespace"] {
                if text(service, &[field]).is_empty() {
                    path.child(field).required(errors, &format!("service {field} is required"));
                }
            }
            let port = int(service, &["port"]).unwrap_or(443);
            if !(1..=65_535).contains(&port) {
                path.child("port").invalid(errors, port, "port is not valid: must be between 1 and 65535, inclusive");
            }
        }
        _ => path.required(errors, "exactly one of url or service is required"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_defaulted_and_checked() {
        let configuration = WebhookConfiguration { mutating: true };
        let mut object = json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "w", "namespace": "d"}}}, {"name": "short"}]});
        configuration.default(&mut object);
        assert_eq!(object["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        assert_eq!(object["webhooks"][0]["reinvocationPolicy"], "Never");
        let mut errors = Vec::new();
        configuration.validate_create(&object, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "webhooks[1].name: Invalid value: \"short\": should be a domain with at least three segments separated by \
                 dots",
                "webhooks[1].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
                "webhooks[1].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[1].clientConfig: Required value: exactly one of url or service is required",
            ]
        );
    }
}
