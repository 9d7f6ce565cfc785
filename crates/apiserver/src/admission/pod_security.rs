//! PodSecurity: pods keep to the Pod Security Standards that the labels of their namespace name.
//!
//! What a pod may do is `kedge_pod_security`'s. There are no exemptions and no other default than `privileged`, as upstream
//! without a configuration file. Invariant: labels that cannot be read are not taken, and where they are there already, they
//! count as the strictest.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath};
use kedge_pod_security::{
    LabelError, Level, Policy, Violation, evaluate, inspect, is_significant_update, pod_template, violations_text,
};
use memchr::memmem;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, objects};
use crate::core::decode;

const LABELS: &[u8] = b"\"pod-security.kubernetes.io/";

/// Subresources of pods that change nothing that is looked at.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// What makes pods.
const CONTROLLERS: [(&str, &str); 8] = [
    ("", "replicationcontrollers"),
    ("", "podtemplates"),
    ("apps", "replicasets"),
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
];

#[derive(Debug, Default)]
pub(super) struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_controller = || CONTROLLERS.iter().any(|(group, resource)| attributes.is_main(group, resource));
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (is_pod(attributes) || attributes.is_main("", "namespaces") || is_controller())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        if attributes.is_main("", "namespaces") {
            return check_labels(attributes, object);
        }
        if !is_pod(attributes) || !is_looked_at(attributes, object) {
            return Ok(());
        }
        let Some(policy) = policy(attributes).await? else {
            note(attributes, "enforce-policy", || "privileged:latest".to_owned());
            return Ok(());
        };
        note(attributes, "enforce-policy", || policy.enforce.to_string());
        note_violations(attributes, &policy, &object["metadata"], &object["spec"]);
        let violations = evaluate(&policy.enforce, &object["metadata"], &object["spec"]);
        if violations.is_empty() {
            return Ok(());
        }
        let text = format!("violates PodSecurity \"{}\": {}", policy.enforce, violations_text(&violations));
        Err(attributes.forbidden(&text))
    }

    async fn warnings(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, ApiStatus> {
        if attributes.is_main("", "namespaces") {
            return existing_pods(attributes, object).await;
        }
        if is_pod(attributes) && !is_looked_at(attributes, object) {
            return Ok(Vec::new());
        }
        let Some(policy) = policy(attributes).await? else { return Ok(Vec::new()) };
        let Some((metadata, spec)) = pod_template(&attributes.resource.kind.kind, object) else {
            return Ok(Vec::new());
        };
        if !is_pod(attributes) {
            note_violations(attributes, &policy, metadata, spec);
        }
        if policy.warn.level == Level::Privileged {
            return Ok(Vec::new());
        }
        let violations: Vec<Violation> = evaluate(&policy.warn, metadata, spec);
        let text = || format!("would violate PodSecurity \"{}\": {}", policy.warn, violations_text(&violations));
        Ok(if violations.is_empty() { Vec::new() } else { vec![text()] })
    }
}

/// Leaves word for the audit log.
fn note(attributes: &Attributes<'_>, key: &str, text: impl FnOnce() -> String) {
    let notes = attributes.told.notes;
    if notes.are_collected() {
        notes.annotate(format!("pod-security.kubernetes.io/{key}"), text());
    }
}

/// Leaves word of what the level of the mode `audit` would not have let pass.
fn note_violations(attributes: &Attributes<'_>, policy: &Policy, metadata: &Value, spec: &Value) {
    if policy.audit.level == Level::Privileged || !attributes.told.notes.are_collected() {
        return;
    }
    let violations = evaluate(&policy.audit, metadata, spec);
    if !violations.is_empty() {
        let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, violations_text(&violations));
        note(attributes, "audit-violations", || text);
    }
}

fn is_pod(attributes: &Attributes<'_>) -> bool {
    attributes.resource.is("", "pods") && !IGNORED.contains(&attributes.subresource)
}

fn is_looked_at(attributes: &Attributes<'_>, pod: &Value) -> bool {
    attributes.old.is_none_or(|old| is_significant_update(pod, old))
}

/// What the namespace of a request asks for; absent where that is nothing.
async fn policy(attributes: &Attributes<'_>) -> Result<Option<Policy>, ApiStatus> {
    let registry = attributes.core.registry.load();
    let Some(resource) = registry.storage("", "namespaces") else { return Ok(None) };
    let Some(record) = attributes.core.find(resource, "", attributes.namespace).await? else { return Ok(None) };
    // Most have no such label.
    if memmem::find(&record.value, LABELS).is_none() {
        return Ok(None);
    }
    let (policy, errors) = Policy::of_labels(&decode(&record)?["metadata"]["labels"]);
    if !errors.is_empty() {
        let texts = || label_errors(&errors).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        note(attributes, "error", || match errors.len() {
            1 => format!("Failed to parse policy: {}", texts()),
            _ => format!("Failed to parse policy: [{}]", texts()),
        });
    }
    Ok(Some(policy).filter(|policy| !policy.is_privileged()))
}

/// Labels that can't be read are refused, but where they were there before.
fn check_labels(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), ApiStatus> {
    let (_, errors) = Policy::of_labels(&namespace["metadata"]["labels"]);
    let before = attributes.old.map(|old| Policy::of_labels(&old["metadata"]["labels"]).1);
    if errors.is_empty() || before.as_ref() == Some(&errors) {
        return Ok(());
    }
    Err(ApiStatus::invalid("", "Namespace", attributes.name, &label_errors(&errors)))
}

fn label_errors(errors: &[LabelError]) -> Vec<FieldError> {
    let path = FieldPath::new("metadata").child("labels");
    let error = |error: &LabelError| FieldError::invalid(&path.key(&error.label), &json!(error.value), error.why);
    errors.iter().map(error).collect()
}

/// Which pods that are there a stricter level would have refused.
async fn existing_pods(attributes: &Attributes<'_>, namespace: &Value) -> Result<Vec<String>, ApiStatus> {
    let Some(old) = attributes.old else { return Ok(Vec::new()) };
    let enforce = |object: &Value| Policy::of_labels(&object["metadata"]["labels"]).0.enforce;
    let (new, old) = (enforce(namespace), enforce(old));
    let is_laxer = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || is_laxer {
        return Ok(Vec::new());
    }
    let pods = objects(attributes.core, "", "pods", attributes.name).await?;
    Ok(inspect(attributes.name, &pods, &new).warnings)
}
