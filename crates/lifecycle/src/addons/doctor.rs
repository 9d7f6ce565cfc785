//! The doctor inside a cluster: the kind of its findings, the least that it must be allowed, and who runs it.
//!
//! Invariant: it may read what it looks at and write what it keeps, and nothing else; Secrets are none of it.

use serde_json::{Value, json};

use super::{NAMESPACE, cluster_role, cluster_role_binding, service_account};

/// Of the service account, the roles, the Lease, the history and the Deployment.
const NAME: &str = "kedge-doctor";
const ROLE: &str = "kedge:doctor";
const METRICS_PORT: u16 = 9099;
/// Groups with what is looked at of each.
const LOOKED_AT: [(&str, &[&str]); 9] = [
    ("", &["nodes", "pods", "namespaces", "persistentvolumeclaims", "persistentvolumes", "services", "events"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("admissionregistration.k8s.io", &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("storage.k8s.io", &["storageclasses", "volumeattachments"]),
    ("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("policy", &["poddisruptionbudgets"]),
    ("certificates.k8s.io", &["certificatesigningrequests"]),
];

/// The name under which the doctor's service account is known to the API.
pub const DOCTOR_USER: &str = "system:serviceaccount:kube-system:kedge-doctor";
/// The namespace of what the doctor keeps beside its findings.
pub const DOCTOR_NAMESPACE: &str = NAMESPACE;

/// The kind and the rights: what a doctor needs that runs anywhere.
pub fn doctor_rights() -> Vec<Value> {
    let read = json!(["get", "list"]);
    let looked_at =
        LOOKED_AT.iter().map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": read}));
    let mut rules: Vec<Value> = looked_at.collect();
    rules.extend([
        json!({"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies", "servicecidrs"], "verbs": read}),
        json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "watch"]}),
        json!({"apiGroups": ["doctor.kedge.dev"], "resources": ["findings"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]}),
    ]);
    let own = json!([
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["coredns"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get", "update", "patch"]},
        // A name cannot be asked for before there is one.
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [NAME],
            "verbs": ["get", "update", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]);
    vec![
        definition(),
        service_account(NAME),
        cluster_role(ROLE, &Value::Array(rules)),
        cluster_role_binding(ROLE, ROLE, NAME),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": ROLE, "namespace": NAMESPACE}, "rules": own}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": ROLE, "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        }),
        people("view", &["get", "list", "watch"]),
    ]
}

/// All of it, with the pods that look.
pub fn doctor_objects(image: &str, replicas: u16) -> Vec<Value> {
    let mut objects = doctor_rights();
    objects.push(deployment(image, replicas));
    objects
}

/// Lets those who may view a cluster see what is wrong with it.
fn people(role: &str, verbs: &[&str]) -> Value {
    let mut role_of_people = cluster_role(
        &format!("kedge:findings-{role}"),
        &json!([{"apiGroups": ["doctor.kedge.dev"], "resources": ["findings"], "verbs": verbs}]),
    );
    role_of_people["metadata"]["labels"] = json!({(format!("rbac.authorization.k8s.io/aggregate-to-{role}")): "true"});
    role_of_people
}

fn definition() -> Value {
    let column = |name: &str, path: &str, kind: &str, priority: u8| json!({"name": name, "jsonPath": path, "type": kind, "priority": priority});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "findings.doctor.kedge.dev"},
        "spec": {
            "group": "doctor.kedge.dev",
            "scope": "Cluster",
            "names": {"plural": "findings", "singular": "finding", "kind": "Finding", "listKind": "FindingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema()},
                "additionalPrinterColumns": [
                    column("ID", ".report.id", "string", 0),
                    column("Title", ".report.title", "string", 0),
                    column("Confidence", ".report.confidence", "string", 0),
                    column("Affects", ".report.affects", "string", 0),
                    column("Since", ".report.since", "date", 0),
                    column("Severity", ".report.severity", "string", 1),
                    column("Text", ".report.text", "string", 1),
                ],
            }],
        },
    })
}

fn schema() -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let object = |about: &str, required: &[&str], properties: Value| json!({"type": "object", "description": about, "required": required, "properties": properties});
    let list = |about: &str, items: Value| json!({"type": "array", "description": about, "items": items});
    let subject = object(
        "Who has the trouble.",
        &["kind", "name"],
        json!({
            "kind": text("A kind of the API, or a part of a machine."),
            "namespace": text("Its namespace."), "name": text("Its name."),
        }),
    );
    let exhibit = object(
        "What proves it.",
        &["origin", "shown"],
        json!({
            "time": {"type": "string", "format": "date-time", "description": "When it happened."},
            "origin": text("Where it was read."), "shown": text("What stood there."),
        }),
    );
    let step = object(
        "A step.",
        &["text"],
        json!({
            "text": text("What to do and why."), "command": text("The command that does it."),
        }),
    );
    let report = object(
        "What the doctor found.",
        &["id", "title", "severity", "confidence", "affects", "subject", "since", "text"],
        json!({
            "id": text("The id in the catalogue of failures."),
            "title": text("The cause in a few words."),
            "severity": {"type": "string", "enum": ["failure", "warning"], "description": "Whether it fails, or will."},
            "confidence": {"type": "string", "enum": ["proven", "likely", "possible"], "description": "How sure it is."},
            "affects": text("Who has the trouble, and how much follows from it."),
            "subject": subject,
            "node": text("The machine, where it is of one."),
            "since": {"type": "string", "format": "date-time", "description": "Since when it is known to be so."},
            "text": text("What is wrong, in one sentence."),
            "effects": {"type": "integer", "description": "How much follows from it."},
            "explains": list("What follows from it, the first of it.", json!({"type": "string"})),
            "evidence": list("What proves it, the first of it.", exhibit),
            "repair": object("What mends it.", &[], json!({
                "dangerous": {"type": "boolean", "description": "Whether data may be lost."},
                "steps": list("In their order.", step),
            })),
        }),
    );
    object(
        "A cause of failures that the doctor found in this cluster. It goes when the cause is gone.",
        &["report"],
        json!({
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "report": report,
        }),
    )
}

fn deployment(image: &str, replicas: u16) -> Value {
    let labels = json!({"k8s-app": NAME});
    let probe = json!({"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 30, "timeoutSeconds": 10});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {
                    "prometheus.io/scrape": "true", "prometheus.io/port": METRICS_PORT.to_string(),
                }},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "containers": [{
                        "name": "doctor",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/usr/local/bin/kedge", "doctor", "watch-cluster"],
                        "args": [format!("--metrics-bind-address=0.0.0.0:{METRICS_PORT}")],
                        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
                        "livenessProbe": probe,
                        "readinessProbe": probe,
                        // A look at a large cluster takes memory for some seconds; there is none at rest.
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "runAsUser": 65534,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    }],
                    // It says what is wrong also where control planes alone are well.
                    "tolerations": [
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                    ],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_that_it_does_not_do() {
        let rules: Vec<Value> = doctor_objects("i", 1)
            .iter()
            .filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")))
            .flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        for rule in &rules {
            let text = rule.to_string();
            assert!(!text.contains('*') && !text.contains("secrets"), "{text}");
            let writes = ["create", "update", "patch", "delete"].iter().any(|verb| text.contains(verb));
            let own = ["findings", "events", "configmaps", "leases"].iter().any(|own| text.contains(own));
            assert!(!writes || own, "{text}");
        }
    }
}
