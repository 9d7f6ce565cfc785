//! MutatingAdmissionPolicies: what they make of objects.

use serde_json::{Value, json};

use crate::custom::{TOOLS, define, tool, tools};
use crate::harness::Harness;
use crate::hook_server::{HookServer, MAPS, configure, map, webhook};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": pod}})
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Creates a policy about everything in `group`, with a binding of its own.
async fn add(harness: &Harness, name: &str, group: &str, more: Value) {
    let rule =
        json!({"apiGroups": [group], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE", "UPDATE"]});
    let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never"});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": spec});
    harness.post(POLICIES, policy).await.expect(201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name}});
    harness.post(BINDINGS, binding).await.expect(201);
}

#[tokio::test]
async fn parts_are_merged_into_objects() {
    let harness = Harness::new().await;
    let expression = "Object{metadata: Object.metadata{annotations: {'by': variables.who}}, spec: Object.spec{replicas: \
        object.spec.replicas + 1, template: Object.spec.template{spec: Object.spec.template.spec{containers: \
        [Object.spec.template.spec.containers{name: 'side', image: 's'}]}}}}";
    let variables = json!([{"name": "who", "expression": "request.userInfo.username"}]);
    add(&harness, "p", "apps", json!({"variables": variables, "mutations": [apply(expression)]})).await;
    let created = harness.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    assert_eq!(created["spec"]["replicas"], 2);
    assert_eq!(created["metadata"]["annotations"]["by"], "admin");
    let containers = created["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let names: Vec<&str> = containers.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "side"]);
    // What is added gets its defaults too.
    assert_eq!(containers[1]["imagePullPolicy"], "Always");
    let changed = harness.patch(&format!("{DEPLOYMENTS}/d"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(changed["spec"]["replicas"], 6);
}

#[tokio::test]
async fn operations_change_objects() {
    let harness = Harness::new().await;
    let expression = "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1}, JSONPatch{op: 'replace', path: \
        '/spec/replicas', value: 3}, JSONPatch{op: 'add', path: '/metadata/labels', value: {}}, JSONPatch{op: 'add', \
        path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}]";
    add(&harness, "p", "apps", json!({"mutations": [patch(expression)]})).await;
    let created = harness.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    assert_eq!(
        (&created["spec"]["replicas"], &created["metadata"]["labels"]),
        (&json!(3), &json!({"example.com/x": "y"}))
    );
    // The test among the operations fails now.
    let refused = harness.patch(&format!("{DEPLOYMENTS}/d"), json!({"spec": {"replicas": 4}})).await;
    refused.refused(403, "Forbidden", "policy 'p' with binding 'p' denied request: ");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_unless_failures_are_ignored() {
    let harness = Harness::new().await;
    let atomic = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
        [Object.spec.template.spec.containers{name: 'c', args: ['x']}]}}}}";
    add(&harness, "p", "apps", json!({"mutations": [apply(atomic)]})).await;
    let text = "policy 'p' with binding 'p' denied request: error applying patch: invalid ApplyConfiguration: may not mutate \
        atomic arrays, maps or structs: .spec.template.spec.containers[0].args";
    harness.post(DEPLOYMENTS, deployment("d")).await.refused(403, "Forbidden", text);
    harness.patch(&format!("{POLICIES}/p"), json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    harness.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    harness.delete(&format!("{POLICIES}/p")).await.expect(200);
    harness.delete(&format!("{BINDINGS}/p")).await.expect(200);
    add(&harness, "q", "apps", json!({"mutations": [apply("Object{spec: Object.spec{nothing: 1}}")]})).await;
    harness.post(DEPLOYMENTS, deployment("e")).await.refused(403, "Forbidden", "failed to convert patch object");
}

#[tokio::test]
async fn policies_that_ask_for_it_run_again_after_others() {
    let harness = Harness::new().await;
    let count = "Object{metadata: Object.metadata{labels: {'seen': string(object.spec.replicas)}}}";
    add(&harness, "a", "apps", json!({"mutations": [apply(count)], "reinvocationPolicy": "IfNeeded"})).await;
    let once = "Object{metadata: Object.metadata{labels: {'once': string(object.spec.replicas)}}}";
    add(&harness, "b", "apps", json!({"mutations": [apply(once)]})).await;
    let conditions = json!([{"name": "small", "expression": "object.spec.replicas < 5"}]);
    let set = apply("Object{spec: Object.spec{replicas: 5}}");
    add(&harness, "c", "apps", json!({"mutations": [set], "matchConditions": conditions})).await;
    let created = harness.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({"seen": "5", "once": "1"}));
}

/// Adds a letter to the label `ran` of maps.
fn note(letter: &str) -> Value {
    apply(&format!(
        "Object{{metadata: Object.metadata{{labels: {{'ran': object.metadata.?labels['ran'].orValue('') + '{letter}'}}}}}}"
    ))
}

async fn ran(harness: &Harness, name: &str) -> Value {
    harness.post(MAPS, map(name)).await.expect(201)["metadata"]["labels"]["ran"].clone()
}

#[tokio::test]
async fn policies_that_ask_for_it_run_in_both_rounds_and_others_in_the_first() {
    let harness = Harness::new().await;
    let (again, never) = ("IfNeeded", "Never");
    for (name, letter, policy) in [("1", "a", again), ("2", "b", never), ("3", "c", again)] {
        add(&harness, name, "", json!({"mutations": [note(letter)], "reinvocationPolicy": policy})).await;
    }
    assert_eq!(ran(&harness, "x").await, "abcac");
}

#[tokio::test]
async fn what_a_webhook_changes_policies_see_where_they_ask_for_it() {
    let harness = Harness::new().await;
    let server = HookServer::adding("by-webhook", None).await;
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), json!({}))])).await;
    let seen = "Object{metadata: Object.metadata{labels: {'%': string('by-webhook' in object.data)}}}";
    for (name, policy) in [("once", "Never"), ("twice", "IfNeeded")] {
        let mutations = json!([apply(&seen.replace('%', name))]);
        add(&harness, name, "", json!({"mutations": mutations, "reinvocationPolicy": policy})).await;
    }
    let created = harness.post(MAPS, map("x")).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({"once": "false", "twice": "true"}));
    assert_eq!(server.requests().len(), 1, "it does not ask to be asked again");
}

#[tokio::test]
async fn what_policies_change_plugins_see() {
    let harness = Harness::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let side = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 's'}]}}";
    let conditions = json!([{"name": "pods", "expression": "request.resource.resource == 'pods'"}]);
    add(&harness, "p", "", json!({"mutations": [apply(side)], "matchConditions": conditions})).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = harness.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let containers = created["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    for container in containers {
        assert_eq!(
            container["volumeMounts"].as_array().map(Vec::len),
            Some(1),
            "ServiceAccount mounts tokens: {container}"
        );
    }
}

#[tokio::test]
async fn custom_resources_are_changed() {
    let harness = Harness::new().await;
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}, "most": {"type": "integer"}}});
    define(&harness, tools(spec)).await;
    let group = TOOLS.split('/').nth(2).unwrap();
    add(&harness, "p", group, json!({"mutations": [apply("Object{spec: Object.spec{most: object.spec.size * 2}}")]}))
        .await;
    let created = harness.post(TOOLS, tool("a", json!({"size": 4}))).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 4, "most": 8}));
}
