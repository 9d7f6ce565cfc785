//! ValidatingAdmissionPolicies: what they match, what they say, and what becomes of it.

use http::Method;
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::custom::{TOOLS, define, tool, tools};
use crate::harness::Harness;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A policy about ConfigMaps, with `more` in its spec.
fn policy(name: &str, more: Value) -> Value {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        "operations": ["CREATE", "UPDATE", "DELETE"]});
    let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn binding(policy: &str, more: Value) -> Value {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("{policy}-binding")}, "spec": spec})
}

/// A server with a policy and a binding of it.
async fn with_policy(spec: Value, bound: Value) -> Harness {
    let harness = Harness::new().await;
    harness.post(POLICIES, policy("p", spec)).await.expect(201);
    harness.post(BINDINGS, binding("p", bound)).await.expect(201);
    harness
}

fn validation(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

const DENIED: &str = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: ";

#[tokio::test]
async fn what_a_policy_denies_is_refused() {
    let spec = json!({"validations": [{"expression": "object.data.size == 'small'"}]});
    let harness = with_policy(spec, json!({})).await;
    let refused = harness.post(MAPS, map("a", json!({"size": "big"}))).await;
    let status = refused.refused(422, "Invalid", &format!("{DENIED}failed expression: object.data.size == 'small'"));
    assert!(status["message"].as_str().unwrap().starts_with("configmaps \"a\" is forbidden: "), "{status}");
    let cause = status["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(cause.starts_with(DENIED), "{cause}");
    harness.post(MAPS, map("a", json!({"size": "small"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    harness.patch(&path, json!({"data": {"size": "big"}})).await.refused(422, "Invalid", DENIED);
    harness.put(&path, map("a", json!({"size": "big"}))).await.refused(422, "Invalid", DENIED);
    let missing = harness.post(MAPS, map("b", json!({"x": "y"}))).await;
    let text = "expression 'object.data.size == 'small'' resulted in error: no such key: size";
    missing.refused(422, "Invalid", text);
    // The deletion has no object, so that the expression fails.
    harness.delete(&path).await.refused(422, "Invalid", "resulted in error");
    harness.delete(&format!("{BINDINGS}/p-binding")).await.expect(200);
    harness.delete(&path).await.expect(200);
}

#[tokio::test]
async fn messages_and_reasons_are_the_policys() {
    let validations = json!([
        {"expression": "object.data.a != '1'", "message": " first ", "reason": "Forbidden"},
        {"expression": "object.data.a != '2'", "messageExpression": "'a is ' + object.data.a", "message": "second"},
        {"expression": "object.data.a != '3'", "messageExpression": "string(object.data.none)", "message": "third"},
        {"expression": "object.data.a != '4'", "message": "fourth", "reason": "RequestEntityTooLarge"},
        {"expression": "object.data.a != '5'", "message": "fifth", "reason": "Unauthorized"},
    ]);
    let harness = with_policy(json!({"validations": validations}), json!({})).await;
    for (a, code, reason, message) in [
        ("1", 403, "Forbidden", "first"),
        ("2", 422, "Invalid", "a is 2"),
        ("3", 422, "Invalid", "third"),
        ("4", 413, "RequestEntityTooLarge", "fourth"),
        ("5", 401, "Unauthorized", "fifth"),
    ] {
        let refused = harness.post(MAPS, map("a", json!({"a": a}))).await;
        refused.refused(code, reason, &format!("{DENIED}{message}"));
    }
    harness.post(MAPS, map("a", json!({"a": "6"}))).await.expect(201);
}

#[tokio::test]
async fn variables_are_evaluated_when_they_are_needed() {
    let spec = json!({
        "variables": [
            {"name": "data", "expression": "object.data"},
            {"name": "both", "expression": "variables.data.a + variables.data.b"},
            {"name": "broken", "expression": "object.data.none"},
        ],
        "validations": [
            {"expression": "variables.both == 'xy'", "messageExpression": "'both is ' + variables.both"},
            {"expression": "!('c' in variables.data) || variables.broken == ''"},
        ],
    });
    let harness = with_policy(spec, json!({})).await;
    harness.post(MAPS, map("a", json!({"a": "x", "b": "y"}))).await.expect(201);
    let refused = harness.post(MAPS, map("b", json!({"a": "x", "b": "z"}))).await;
    refused.refused(422, "Invalid", "both is xz");
    let broken = harness.post(MAPS, map("c", json!({"a": "x", "b": "y", "c": "1"}))).await;
    broken.refused(422, "Invalid", "composited variable \"broken\" fails to evaluate");
}

#[tokio::test]
async fn bindings_say_what_becomes_of_it() {
    let harness =
        with_policy(validation("object.data.a == '1'"), json!({"validationActions": ["Warn", "Audit"]})).await;
    let said = harness.post(MAPS, map("a", json!({"a": "2"}))).await;
    let text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': failed expression: \
                object.data.a == '1'";
    assert!(said.warnings().iter().any(|warning| warning.contains(text)), "{:?}", said.warnings());
    said.expect(201);
    let deleted = harness.delete(&format!("{MAPS}/a")).await;
    assert!(deleted.warnings().iter().any(|warning| warning.contains("with binding 'p-binding'")), "deletions warn");
    deleted.expect(200);
    harness
        .patch(&format!("{BINDINGS}/p-binding"), json!({"spec": {"validationActions": ["Audit"]}}))
        .await
        .expect(200);
    let silent = harness.post(MAPS, map("b", json!({"a": "2"}))).await;
    assert!(silent.warnings().is_empty(), "{:?}", silent.warnings());
    silent.expect(201);
}

#[tokio::test]
async fn what_fails_may_be_ignored() {
    let spec = json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.none == 1"},
        {"expression": "object.data.a == '1'"}]});
    let harness = with_policy(spec, json!({})).await;
    harness.post(MAPS, map("a", json!({"a": "1"}))).await.expect(201);
    harness.post(MAPS, map("b", json!({"a": "2"}))).await.refused(422, "Invalid", DENIED);
}

#[tokio::test]
async fn conditions_rules_and_selectors_narrow_a_policy() {
    let mut spec = validation("false");
    spec["matchConditions"] = json!([{"name": "not-admins", "expression": "object.metadata.name != 'free'"}]);
    let harness = with_policy(
        spec,
        json!({"matchResources": {
        "namespaceSelector": {"matchLabels": {"checked": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
        "excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
            "operations": ["CREATE"], "resourceNames": ["excluded"]}]}}),
    )
    .await;
    harness.post(MAPS, map("a", json!({}))).await.expect(201);
    harness.patch("/api/v1/namespaces/default", json!({"metadata": {"labels": {"checked": "yes"}}})).await.expect(200);
    harness.post(MAPS, map("b", json!({}))).await.refused(422, "Invalid", "failed expression: false");
    harness.post(MAPS, map("free", json!({}))).await.expect(201);
    harness.post(MAPS, map("excluded", json!({}))).await.expect(201);
    let mut labelled = map("c", json!({}));
    labelled["metadata"]["labels"] = json!({"free": "1"});
    harness.post(MAPS, labelled).await.expect(201);
    harness.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
}

#[tokio::test]
async fn other_versions_match_unless_exactness_is_asked_for() {
    let harness = Harness::new().await;
    let of = |policy: &str| {
        let rule = json!({"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["horizontalpodautoscalers"]});
        let expression = "has(object.spec.targetCPUUtilizationPercentage) && request.requestKind.version == 'v1'";
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p"}, "spec": {"matchConstraints": {"matchPolicy": policy, "resourceRules": [rule]},
                "validations": [{"expression": expression, "messageExpression": "request.kind.version + ' ' + request.requestKind.version"}]}})
    };
    harness.post(POLICIES, of("Equivalent")).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str| json!({"metadata": {"name": name}, "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "D", "name": "d"}}});
    harness.post(path, scaler("a")).await.refused(422, "Invalid", "v1 v2");
    harness.put(&format!("{POLICIES}/p"), of("Exact")).await.expect(200);
    harness.post(path, scaler("a")).await.expect(201);
}

#[tokio::test]
async fn parameters_come_from_objects() {
    let mut spec = validation("object.data.a == params.data.a");
    spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    spec["matchConditions"] = json!([{"name": "x", "expression": "!object.metadata.name.startsWith('param')"}]);
    let reference = json!({"name": "param", "parameterNotFoundAction": "Deny"});
    let harness = with_policy(spec, json!({"paramRef": reference})).await;
    let text = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    harness.post(MAPS, map("a", json!({"a": "1"}))).await.refused(422, "Invalid", text);
    harness.post(MAPS, map("param", json!({"a": "1"}))).await.refused(422, "Invalid", text);
    let path = format!("{BINDINGS}/p-binding");
    harness.patch(&path, json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}})).await.expect(200);
    harness.post(MAPS, map("param", json!({"a": "1"}))).await.expect(201);
    harness.post(MAPS, map("a", json!({"a": "1"}))).await.expect(201);
    harness.post(MAPS, map("b", json!({"a": "2"}))).await.refused(422, "Invalid", DENIED);
    let selected = json!({"name": null, "selector": {"matchLabels": {"is": "param"}}});
    harness.patch(&path, json!({"spec": {"paramRef": selected}})).await.expect(200);
    harness.post(MAPS, map("b", json!({"a": "2"}))).await.expect(201);
    for (name, a) in [("param-1", "1"), ("param-2", "2")] {
        let mut param = map(name, json!({"a": a}));
        param["metadata"]["labels"] = json!({"is": "param"});
        harness.post(MAPS, param).await.expect(201);
    }
    harness.post(MAPS, map("c", json!({"a": "2"}))).await.refused(422, "Invalid", DENIED);
}

#[tokio::test]
async fn custom_resources_are_matched_and_may_be_parameters() {
    let harness = Harness::new().await;
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&harness, tools(spec)).await;
    let created = harness.post(TOOLS, tool("limit", json!({"most": 3}))).await.expect(201);
    let (api_version, kind) = (created["apiVersion"].clone(), created["kind"].clone());
    let group = api_version.as_str().unwrap().split('/').next().unwrap().to_owned();
    let rule = json!({"apiGroups": [group], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": api_version, "kind": kind},
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.spec.size <= params.spec.most", "message": "too large"}]}});
    harness.post(POLICIES, policy).await.expect(201);
    let reference = json!({"name": "limit", "parameterNotFoundAction": "Deny"});
    harness.post(BINDINGS, binding("p", json!({"paramRef": reference}))).await.expect(201);
    harness.post(TOOLS, tool("a", json!({"size": 4}))).await.refused(422, "Invalid", "too large");
    harness.post(TOOLS, tool("a", json!({"size": 3}))).await.expect(201);
}

/// Whether a policy with this expression lets the user create a map.
async fn is_let_in(harness: &Harness, name: &str, expression: &str, user: UserInfo) -> bool {
    harness.post(POLICIES, policy("p", validation(expression))).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    let answer = harness.call_as(user, Method::POST, MAPS, map(name, json!({}))).await;
    harness.delete(&format!("{BINDINGS}/p-binding")).await.expect(200);
    harness.delete(&format!("{POLICIES}/p")).await.expect(200);
    if answer.code != 201 {
        answer.refused(422, "Invalid", DENIED);
        return false;
    }
    true
}

#[tokio::test]
async fn who_may_do_what_depends_on_selectors() {
    let harness = Harness::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "maps"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]});
    harness.post(&format!("{rbac}/roles"), role).await.expect(201);
    let binding = json!({"metadata": {"name": "maps"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}],
        "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io", "name": "maps"}});
    harness.post(&format!("{rbac}/rolebindings"), binding).await.expect(201);
    for (number, (selectors, allowed)) in [
        (".fieldSelector('spec.nodeName=n1')", true),
        (".fieldSelector('spec.nodeName=n1').labelSelector('app=web')", true),
        (".fieldSelector('spec.nodeName=n2')", false),
        (".fieldSelector('spec.nodeName')", false),
        (".labelSelector('app=web')", false),
        ("", false),
    ]
    .into_iter()
    .enumerate()
    {
        let expression = format!("authorizer.group('').resource('pods'){selectors}.check('list').allowed()");
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        assert_eq!(is_let_in(&harness, &format!("m{number}"), &expression, node).await, allowed, "{expression}");
    }
}

#[tokio::test]
async fn expressions_know_the_request_the_namespace_and_who_may_do_what() {
    let harness = Harness::new().await;
    let check = async |name: &str, expression: &str, user: UserInfo| {
        assert!(is_let_in(&harness, name, expression, user).await, "{expression}");
    };
    let admin = || UserInfo::authenticated("root", ["system:masters"]);
    check("a", "request.operation == 'CREATE' && request.name == 'a' && request.namespace == 'default'", admin()).await;
    check("b", "request.resource.resource == 'configmaps' && request.kind.kind == 'ConfigMap'", admin()).await;
    check("c", "request.userInfo.username == 'root' && 'system:masters' in request.userInfo.groups", admin()).await;
    check("d", "request.dryRun == false && request.options.kind == 'CreateOptions' && oldObject == null", admin())
        .await;
    check("e", "namespaceObject.metadata.name == 'default' && namespaceObject.status.phase == 'Active'", admin()).await;
    check("f", "authorizer.group('').resource('pods').namespace('default').check('create').allowed()", admin()).await;
    check("g", "authorizer.requestResource.check('create').allowed()", admin()).await;
    let nobody = "!authorizer.serviceAccount('default', 'x').group('').resource('pods').check('get').allowed()";
    check("h", nobody, admin()).await;
    check("i", "!authorizer.serviceAccount('default', 'x').path('/metrics').check('get').allowed()", admin()).await;
}

#[tokio::test]
async fn policies_are_not_asked_about_policies() {
    let harness = Harness::new().await;
    let rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]});
    let mut all = policy("p", validation("false"));
    all["spec"]["matchConstraints"]["resourceRules"] = json!([rule]);
    harness.post(POLICIES, all).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    harness.post(MAPS, map("a", json!({}))).await.refused(422, "Invalid", DENIED);
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    harness.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.expect(201);
    harness.patch(&format!("{POLICIES}/p"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    harness.delete(&format!("{BINDINGS}/p-binding")).await.expect(200);
    harness.post(MAPS, map("a", json!({}))).await.expect(201);
}

#[tokio::test]
async fn subresources_are_asked_about_where_rules_name_them() {
    let harness = Harness::new().await;
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces/status", "serviceaccounts/token"],
        "operations": ["*"]});
    let mut status = policy("p", validation("request.subResource == 'token' && object.spec.expirationSeconds < 1000"));
    status["spec"]["matchConstraints"]["resourceRules"] = json!([rule]);
    harness.post(POLICIES, status).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    harness.patch("/api/v1/namespaces/default", json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    let refused = harness
        .patch(
            "/api/v1/namespaces/default/status",
            json!({"status": {"phase": "Active"}, "metadata": {"labels": {"a": "c"}}}),
        )
        .await;
    refused.refused(422, "Invalid", DENIED);
    harness.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "s"}})).await.expect(201);
    let tokens = "/api/v1/namespaces/default/serviceaccounts/s/token";
    let asked = |seconds: i64| json!({"spec": {"audiences": ["x"], "expirationSeconds": seconds}});
    harness.post(tokens, asked(2000)).await.refused(422, "Invalid", DENIED);
    harness.post(tokens, asked(900)).await.expect(201);
}

#[tokio::test]
async fn expressions_see_what_goes_through_scales_and_bindings() {
    let harness = Harness::new().await;
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["*"]});
    let expression =
        "object.kind == 'Scale' ? object.spec.replicas <= oldObject.spec.replicas + 1 : object.target.name == 'good'";
    let mut asked = policy("p", validation(expression));
    let rules = json!([rule("apps", "deployments/scale"), rule("", "pods/binding")]);
    asked["spec"]["matchConstraints"]["resourceRules"] = rules;
    let condition = json!({"name": "kinds", "expression": "request.kind.kind in ['Scale', 'Binding']"});
    asked["spec"]["matchConditions"] = json!([condition]);
    harness.post(POLICIES, asked).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    let pod =
        json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": pod}});
    harness.post("/apis/apps/v1/namespaces/default/deployments", deployment).await.expect(201);
    let scale = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    harness.patch(scale, json!({"spec": {"replicas": 3}})).await.refused(422, "Invalid", DENIED);
    harness.patch(scale, json!({"spec": {"replicas": 2}})).await.expect(200);
    harness
        .post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    harness.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let bind = |node: &str| json!({"metadata": {"name": "p"}, "target": {"name": node}});
    let bindings = "/api/v1/namespaces/default/pods/p/binding";
    harness.post(bindings, bind("bad")).await.refused(422, "Invalid", DENIED);
    harness.post(bindings, bind("good")).await.expect(201);
}

#[tokio::test]
async fn work_of_policies_is_bounded() {
    let loops = "object.data.all(a, object.data.all(b, object.data.all(c, a != b || b != c || c == a)))";
    let harness = with_policy(validation(loops), json!({})).await;
    let data: Value = (0..150).map(|index| (format!("k{index}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    harness.post(MAPS, map("a", json!({"a": ""}))).await.expect(201);
    let text = "validation failed due to running out of cost budget, no further validation rules will be run";
    harness.post(MAPS, map("b", data)).await.refused(422, "Invalid", text);
}

#[tokio::test]
async fn policies_of_upstreams_tests_do_what_these_expect() {
    let harness = Harness::new().await;
    let rule =
        json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1",
                "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
            {"expression": "variables.oddReplicas"}, {"expression": "namespaceObject.metadata.name == 'default'"}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    harness.post(POLICIES, policy).await.expect(201);
    harness.post(BINDINGS, binding("p", json!({}))).await.expect(201);
    let deployment = |replicas: i64| {
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        json!({"metadata": {"name": "d"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": pod}})
    };
    let path = "/apis/apps/v1/namespaces/default/deployments";
    // A text and a number make no message.
    harness.post(path, deployment(1)).await.refused(422, "Invalid", "failed expression: variables.replicas > 1");
    harness.post(path, deployment(2)).await.refused(422, "Invalid", "failed expression: variables.oddReplicas");
    harness.post(path, deployment(3)).await.expect(201);
}

#[tokio::test]
async fn a_policy_whose_parameters_are_of_no_kind_is_wrong_itself() {
    let mut spec = validation("true");
    spec["paramKind"] = json!({"apiVersion": "a.io/v1", "kind": "Nothing"});
    let reference = json!({"name": "x", "parameterNotFoundAction": "Allow"});
    let harness = with_policy(spec, json!({"paramRef": reference})).await;
    let text = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource \
        referenced by paramKind: 'a.io/v1, Kind=Nothing'";
    harness.post(MAPS, map("a", json!({}))).await.refused(422, "Invalid", text);
    harness.patch(&format!("{POLICIES}/p"), json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    harness.post(MAPS, map("a", json!({}))).await.expect(201);
}
