//! Who may do what: denials, RBAC at once, impersonation, tokens, reviews.

use http::Method;
use kedge_auth::TokenKeys;
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, request, token_key_pem};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn jane() -> UserInfo {
    UserInfo::authenticated("jane", ["developers"])
}

async fn grant(harness: &Harness) {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    harness.post(&format!("{RBAC}/namespaces/default/roles"), role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "developers"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}});
    harness.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
}

#[tokio::test]
async fn a_binding_is_effective_at_once_and_until_it_goes() {
    let harness = Harness::new().await;
    let denied = "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    harness.get_as(jane(), MAPS).await.refused(403, "Forbidden", denied);
    grant(&harness).await;
    harness.get_as(jane(), MAPS).await.expect(200);
    harness.get_as(jane(), "/api/v1/namespaces/kube-system/configmaps").await.expect(403);
    harness.delete(&format!("{RBAC}/namespaces/default/rolebindings/reader")).await.expect(200);
    harness.get_as(jane(), MAPS).await.expect(403);
    let path = "forbidden: User \"jane\" cannot get path \"/metrics\"";
    harness.get_as(jane(), "/metrics").await.refused(403, "Forbidden", path);
    harness.get_as(jane(), "/api").await.expect(200);
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let harness = Harness::new().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "keeper"},
        "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"]}]});
    harness.post(&format!("{RBAC}/namespaces/default/roles"), role.clone()).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "keeper"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    harness.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "writer"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "joe"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keeper"}});
    harness.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
    let joe = || UserInfo::authenticated("joe", []);
    let mut wide = role.clone();
    wide["metadata"]["name"] = json!("wide");
    wide["rules"] = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    // The keeper may do everything with roles, escalation included; a plain writer may not.
    harness.call_as(joe(), Method::POST, &format!("{RBAC}/namespaces/default/roles"), wide.clone()).await.expect(201);
    let plain =
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create", "update"]}]);
    harness.patch(&format!("{RBAC}/namespaces/default/roles/keeper"), json!({"rules": plain})).await.expect(200);
    wide["metadata"]["name"] = json!("wider");
    let refused = harness.call_as(joe(), Method::POST, &format!("{RBAC}/namespaces/default/roles"), wide).await;
    refused.refused(403, "Forbidden", "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}");
}

async fn send(harness: &Harness, user: UserInfo, headers: &[(&str, &str)], path: &str) -> Answer {
    Answer::read(harness.send(Some(user), request(Method::GET, path, headers, "")).await).await
}

#[tokio::test]
async fn who_may_only_read_gets_into_no_container() {
    let harness = Harness::new().await;
    let role = |verbs: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "auditor"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]})
    };
    harness.post(&format!("{RBAC}/clusterroles"), role(&["get", "list", "watch"])).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "auditor"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "auditor"}});
    harness.post(&format!("{RBAC}/clusterrolebindings"), binding).await.expect(201);
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let subresources = ["exec?command=sh&stdout=1", "attach?stdout=1", "portforward?ports=80"];
    for subresource in subresources {
        let path = format!("/api/v1/namespaces/default/pods/p/{subresource}");
        let word = subresource.split('?').next().unwrap();
        let denied = format!("pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/{word}\"");
        send(&harness, jane(), &upgrade, &path).await.refused(403, "Forbidden", &denied);
    }
    harness.put(&format!("{RBAC}/clusterroles/auditor"), role(&["get", "create"])).await.expect(200);
    for subresource in subresources {
        let path = format!("/api/v1/namespaces/default/pods/p/{subresource}");
        send(&harness, jane(), &upgrade, &path).await.refused(404, "NotFound", "pods \"p\" not found");
    }
}

#[tokio::test]
async fn reviews_answer() {
    let harness = Harness::new().await;
    grant(&harness).await;
    let review = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "resource": "configmaps", "namespace": "default"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (verb, allowed) in [("list", true), ("delete", false)] {
        let answer = harness.call_as(jane(), Method::POST, path, review(verb)).await.expect(201);
        assert_eq!(answer["status"]["allowed"], allowed, "{answer}");
    }
    let subject = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"groups": ["developers"], "resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "default"}}});
    let answer = harness.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", subject).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let answer = harness
        .call_as(jane(), Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules)
        .await
        .expect(201);
    let listed = answer["status"]["resourceRules"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| rule["resources"] == json!(["configmaps"]));
    assert!(listed, "{answer}");
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = harness
        .call_as(jane(), Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", who)
        .await
        .expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "groups": ["developers", "system:authenticated"]})
    );
    let empty = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get"}}});
    harness.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", empty).await.refused(
        422,
        "Invalid",
        "at least one of user or group",
    );
}

/// What a review answers about a node's wish to list pods, limited by `selectors`.
async fn review_of_node(harness: &Harness, selectors: Value) -> Answer {
    let mut about = json!({"verb": "list", "resource": "pods"});
    about.as_object_mut().unwrap().extend(selectors.as_object().unwrap().clone());
    let spec = json!({"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": about});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    harness.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await
}

#[tokio::test]
async fn reviews_look_at_selectors() {
    let harness = Harness::new().await;
    let term =
        |operator: &str, values: &[&str]| json!({"key": "spec.nodeName", "operator": operator, "values": values});
    let ignored = "spec.resourceAttributes.fieldSelector ignored due to parse error";
    let partially = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
    for (selector, allowed, complaint) in [
        (json!({"rawSelector": "spec.nodeName=n1"}), true, ""),
        (json!({"rawSelector": "spec.nodeName=n2"}), false, ""),
        (json!({"rawSelector": "nonsense"}), false, ignored),
        (json!({"requirements": [term("In", &["n1"])]}), true, ""),
        (json!({"requirements": [term("In", &["n2,spec.nodeName=n1"])]}), false, ""),
        (json!({"requirements": [term("NotIn", &["n1"])]}), false, ""),
        (json!({"requirements": [term("In", &["n1", "n2"])]}), false, ignored),
        (json!({"requirements": [term("Exists", &[]), term("In", &["n1"])]}), true, partially),
        (json!({"requirements": [term("Newer", &["n1"])]}), false, ignored),
    ] {
        let answer = review_of_node(&harness, json!({"fieldSelector": selector})).await.expect(201);
        let status = &answer["status"];
        assert_eq!(
            (&status["allowed"], status["evaluationError"].as_str().unwrap_or_default()),
            (&json!(allowed), complaint),
            "{answer}"
        );
    }
    let labels = json!({"requirements": [{"key": "a", "operator": "Newer"}, {"key": "b", "operator": "Exists"}]});
    let answer = review_of_node(&harness, json!({"labelSelector": labels})).await.expect(201);
    let complaint = "spec.resourceAttributes.labelSelector partially ignored due to parse error";
    assert_eq!(answer["status"]["evaluationError"], complaint);
    for (selectors, why) in [
        (
            json!({"fieldSelector": {}}),
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when \
             spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
        (
            json!({"labelSelector": {"rawSelector": "a", "requirements": [{"key": "a", "operator": "Exists"}]}}),
            "spec.resourceAttributes.labelSelector.rawSelector: Invalid value: \"a\": may not specified at the same time as \
             requirements",
        ),
        (
            json!({"fieldSelector": {"requirements": [{"key": "", "operator": "In", "values": ["a"]}]}}),
            "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
        ),
        (
            json!({"labelSelector": {"requirements": [{"key": "a/", "operator": "In"}]}}),
            "spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` \
             is 'In' or 'NotIn'",
        ),
    ] {
        review_of_node(&harness, selectors).await.refused(422, "Invalid", why);
    }
}

#[tokio::test]
async fn a_node_lists_its_own_pods_alone() {
    let harness = Harness::new().await;
    let kubelet = || UserInfo::authenticated("system:node:n1", ["system:nodes"]);
    harness.get_as(kubelet(), "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    let why = "pods is forbidden: User \"system:node:n1\" cannot list resource \"pods\" in API group \"\" at the cluster \
               scope: can only list/watch pods with spec.nodeName field selector";
    harness.get_as(kubelet(), "/api/v1/pods").await.refused(403, "Forbidden", why);
    harness.get_as(kubelet(), "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await.refused(403, "Forbidden", why);
    harness.get_as(kubelet(), "/api/v1/nodes?fieldSelector=metadata.name%3Dn1").await.expect(200);
    let why = "node 'n1' cannot read all nodes, only its own Node object";
    harness.get_as(kubelet(), "/api/v1/nodes").await.refused(403, "Forbidden", why);
}

async fn token_review(harness: &Harness, token: &str) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    harness.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.expect(201)["status"].clone()
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_account() {
    let harness = Harness::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    harness.post(accounts, account.clone()).await.expect(201);
    let wanted =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let answer = harness.post(&format!("{accounts}/robot/token"), wanted.clone()).await.expect(201);
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T03:14:05Z");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let status = token_review(&harness, &token).await;
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:robot"))
    );
    harness.clock.advance(std::time::Duration::from_secs(700));
    assert_eq!(token_review(&harness, &token).await["authenticated"], false);
    let answer = harness.post(&format!("{accounts}/robot/token"), wanted).await.expect(201);
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    harness.delete(&format!("{accounts}/robot")).await.expect(200);
    harness.post(accounts, account).await.expect(201);
    assert_eq!(
        token_review(&harness, &token).await["authenticated"],
        false,
        "the account of that name is another one now"
    );
    let short =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 5}});
    harness.post(&format!("{accounts}/robot/token"), short).await.refused(
        422,
        "Invalid",
        "may not specify a duration less than 10 minutes",
    );
}

#[tokio::test]
async fn tokens_go_on_where_an_rsa_key_follows() {
    let harness = Harness::new().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    harness.post(accounts, account).await.expect(201);
    let pem = token_key_pem();
    harness.server.replace_token_keys(TokenKeys::from_private_pem(&pem).unwrap());
    let old = new_token(&harness).await;
    // As a cluster of kubeadm's is taken over.
    let body = include_str!("../../../auth/src/token_key/rsa.pkcs1.base64").trim();
    let rsa = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n");
    let mut keys = TokenKeys::from_private_pem(&rsa).unwrap();
    keys.also_verify_with(&pem).unwrap();
    harness.server.replace_token_keys(keys);
    let new = new_token(&harness).await;
    for token in [&old, &new] {
        assert_eq!(token_review(&harness, token).await["user"]["username"], "system:serviceaccount:default:robot");
    }
    let issuer = harness.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(issuer["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
    let published = harness.get("/openid/v1/jwks").await.expect(200);
    let algorithms: Vec<&Value> = published["keys"].as_array().unwrap().iter().map(|key| &key["alg"]).collect();
    assert_eq!(algorithms, ["RS256", "ES256"]);
    harness.server.replace_token_keys(TokenKeys::from_private_pem(&rsa).unwrap());
    assert_eq!(token_review(&harness, &old).await["authenticated"], false);
    assert_eq!(token_review(&harness, &new).await["authenticated"], true);
}

async fn new_token(harness: &Harness) -> String {
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let answer = harness.post(path, wanted).await.expect(201);
    answer["status"]["token"].as_str().unwrap().to_owned()
}
