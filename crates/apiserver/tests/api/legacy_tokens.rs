//! Tokens out of Secrets: when they are good, and what their use leaves.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_auth::{TokenSubject, legacy_token_claims};
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, token_keys};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TRACKING: &str = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";

/// The account `robot`, and a Secret with its token.
async fn issue(harness: &Harness) -> String {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let account = harness.post(ACCOUNTS, account).await.expect(201);
    let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
    let keys = token_keys();
    let account = TokenSubject { name: "robot".to_owned(), uid };
    let token = keys.issue(&legacy_token_claims("default", &account, "robot-token"));
    harness.server.replace_token_keys(keys);
    let metadata = json!({"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)}});
    harness.post(SECRETS, secret).await.expect(201);
    token
}

async fn review(harness: &Harness, token: &str, audiences: &[&str]) -> Answer {
    let spec = json!({"token": token, "audiences": audiences});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    harness.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await
}

async fn is_good(harness: &Harness, token: &str) -> bool {
    review(harness, token, &[]).await.expect(201)["status"]["authenticated"] == true
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_the_secret_holds_it() {
    let harness = Harness::new().await;
    let token = issue(&harness).await;
    let answer = review(&harness, &token, &[]).await;
    assert_eq!(answer.warnings(), [""; 0]);
    let status = answer.expect(201)["status"].clone();
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["user"]["extra"], Value::Null);
    // It is for this API alone.
    let elsewhere = review(&harness, &token, &["vault"]).await.expect(201);
    assert_eq!(elsewhere["status"]["authenticated"], false);
    // Its Secret holds another one, and it again.
    let path = format!("{SECRETS}/robot-token");
    let holding = |token: &str| json!({"data": {"token": STANDARD.encode(token)}});
    harness.patch(&path, holding("another")).await.expect(200);
    assert!(!is_good(&harness, &token).await);
    harness.patch(&path, holding(&token)).await.expect(200);
    assert!(is_good(&harness, &token).await);
    harness.delete(&path).await.expect(200);
    assert!(!is_good(&harness, &token).await);
}

#[tokio::test]
async fn a_token_in_a_secret_ends_with_its_account() {
    let harness = Harness::new().await;
    let token = issue(&harness).await;
    assert!(is_good(&harness, &token).await);
    harness.delete(&format!("{ACCOUNTS}/robot")).await.expect(200);
    assert!(!is_good(&harness, &token).await);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    harness.post(ACCOUNTS, account).await.expect(201);
    assert!(!is_good(&harness, &token).await, "the account of that name is another one now");
}

#[tokio::test]
async fn uses_are_noted_and_marked_tokens_refused() {
    let harness = Harness::new().await;
    let token = issue(&harness).await;
    assert_eq!(harness.get(TRACKING).await.expect(200)["data"], json!({"since": "2026-01-02"}));
    let path = format!("{SECRETS}/robot-token");
    let label = async |name: &str| harness.get(&path).await.expect(200)["metadata"]["labels"][name].clone();
    assert!(is_good(&harness, &token).await);
    assert_eq!(label("kubernetes.io/legacy-token-last-used").await, "2026-01-02");
    let version = async || harness.get(&path).await.expect(200)["metadata"]["resourceVersion"].clone();
    let before = version().await;
    assert!(is_good(&harness, &token).await);
    assert_eq!(version().await, before, "once a day is enough");
    // One that was made with its account is warned of.
    let listed = json!({"secrets": [{"name": "robot-token"}]});
    harness.patch(&format!("{ACCOUNTS}/robot"), listed).await.expect(200);
    let warnings = review(&harness, &token, &[]).await.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("Use tokens from the TokenRequest API"), "{warnings:?}");
    let marked = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-03"}}});
    harness.patch(&path, marked).await.expect(200);
    harness.clock.advance(std::time::Duration::from_secs(48 * 3600));
    assert!(!is_good(&harness, &token).await);
    assert_eq!(label("kubernetes.io/legacy-token-last-used").await, "2026-01-04", "that somebody tried is noted");
    let metrics = harness.get("/metrics").await.text;
    for (name, count) in [
        ("legacy_tokens_total", 4),
        ("legacy_manual_token_uses_total", 2),
        ("legacy_auto_token_uses_total", 1),
        ("invalid_legacy_auto_token_uses_total", 1),
        ("stale_tokens_total", 0),
    ] {
        let line = format!("serviceaccount_{name} {count}");
        assert!(metrics.lines().any(|own| own == line), "{line} is not in {metrics}");
    }
}
