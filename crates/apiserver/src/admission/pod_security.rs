//! PodSecurity: pods keep to the Pod Security Standards that the labels of their namespace name.
//!
//! What a pod may do is `kedge_pod_security`'s; defaults and exemptions are the configuration's. Invariant: labels that
//! cannot be read are not taken, and where they are there already, they count as the strictest.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath};
use kedge_pod_security::{
    Configuration, Exemptions, LabelError, Level, LevelVersion, Policy, Violation, evaluate, inspect,
    is_significant_update, pod_template, violations_text,
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
        if !is_pod(attributes) || is_exempt(attributes) || !is_looked_at(attributes, object) {
            return Ok(());
        }
        if runs_exempt(attributes, &object["spec"]) {
            note(attributes, "exempt", || "runtimeClass".to_owned());
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
        if is_exempt(attributes) || is_pod(attributes) && !is_looked_at(attributes, object) {
            return Ok(Vec::new());
        }
        let Some(policy) = policy(attributes).await? else { return Ok(Vec::new()) };
        let Some((metadata, spec)) = pod_template(&attributes.resource.kind.kind, object) else {
            return Ok(Vec::new());
        };
        if runs_exempt(attributes, spec) {
            return Ok(Vec::new());
        }
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

/// Whether the namespace or the user of a request is exempt; leaves word of it.
fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let Exemptions { usernames, namespaces, .. } = &attributes.core.config.pod_security.exemptions;
    let by = match (namespaces.iter().any(|name| name == attributes.namespace), usernames) {
        (true, _) => "namespace",
        (false, names) if names.contains(&attributes.user.username) => "user",
        _ => return false,
    };
    note(attributes, "exempt", || by.to_owned());
    true
}

/// Whether the runtime class of a pod is exempt.
fn runs_exempt(attributes: &Attributes<'_>, spec: &Value) -> bool {
    let classes = &attributes.core.config.pod_security.exemptions.runtime_classes;
    spec["runtimeClassName"].as_str().is_some_and(|name| classes.iter().any(|class| class == name))
}

fn is_pod(attributes: &Attributes<'_>) -> bool {
    attributes.resource.is("", "pods") && !IGNORED.contains(&attributes.subresource)
}

fn is_looked_at(attributes: &Attributes<'_>, pod: &Value) -> bool {
    attributes.old.is_none_or(|old| is_significant_update(pod, old))
}

/// What the namespace of a request asks for; absent where that is nothing.
async fn policy(attributes: &Attributes<'_>) -> Result<Option<Policy>, ApiStatus> {
    let defaults = &attributes.core.config.pod_security.defaults;
    let registry = attributes.core.registry.load();
    let Some(resource) = registry.storage("", "namespaces") else { return Ok(None) };
    let record = attributes.core.find(resource, "", attributes.namespace).await?;
    // Most have no such label.
    let Some(record) = record.filter(|record| memmem::find(&record.value, LABELS).is_some()) else {
        return Ok(Some(*defaults).filter(|policy| !policy.is_privileged()));
    };
    let (policy, errors) = Policy::of_labels(&decode(&record)?["metadata"]["labels"], defaults);
    if !errors.is_empty() {
        let texts = || label_errors(&errors).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        note(attributes, "error", || match errors.len() {
            1 => format!("Failed to parse policy: {}", texts()),
            _ => format!("Failed to parse policy: [{}]", texts()),
        });
    }
    Ok(Some(policy).filter(|policy| !policy.is_privileged()))
}

fn of_namespace(attributes: &Attributes<'_>, namespace: &Value) -> (Policy, Vec<LabelError>) {
    Policy::of_labels(&namespace["metadata"]["labels"], &attributes.core.config.pod_security.defaults)
}

/// Labels that can't be read are refused, but where they were there before.
fn check_labels(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), ApiStatus> {
    let errors = |namespace: &Value| of_namespace(attributes, namespace).1;
    let (errors, before) = (errors(namespace), attributes.old.map(errors));
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

/// Which pods that are there a stricter level would have refused; or that nothing is looked at.
async fn existing_pods(attributes: &Attributes<'_>, namespace: &Value) -> Result<Vec<String>, ApiStatus> {
    let policy = of_namespace(attributes, namespace).0;
    let new = policy.enforce;
    if let Some(old) = attributes.old {
        let old = of_namespace(attributes, old).0.enforce;
        let is_laxer = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || is_laxer {
            return Ok(Vec::new());
        }
    }
    let Configuration { defaults, exemptions } = &attributes.core.config.pod_security;
    if exemptions.namespaces.iter().any(|name| name == attributes.name) {
        let is_told = policy != *defaults && !policy.is_privileged();
        let text = || {
            let shown = labelled_modes(&policy, &namespace["metadata"]["labels"]);
            let name = attributes.name;
            format!("namespace \"{name}\" is exempt from Pod Security, and the policy ({shown}) will be ignored")
        };
        return Ok(is_told.then(text).into_iter().collect());
    }
    if attributes.old.is_none() {
        return Ok(Vec::new());
    }
    let mut pods = objects(attributes.core, "", "pods", attributes.name).await?;
    pods.retain(|pod| !runs_exempt(attributes, &pod["spec"]));
    Ok(inspect(attributes.name, &pods, &new).warnings)
}

/// The modes that labels name and that are not privileged.
fn labelled_modes(policy: &Policy, labels: &Value) -> String {
    let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
    let is_shown = |(name, mode): &(&str, LevelVersion)| {
        let has = |suffix: &str| labels.get(format!("pod-security.kubernetes.io/{name}{suffix}")).is_some();
        mode.level != Level::Privileged && (has("") || has("-version"))
    };
    modes
        .iter()
        .filter(|mode| is_shown(mode))
        .map(|(name, mode)| format!("{name}={mode}"))
        .collect::<Vec<_>>()
        .join(", ")
}
