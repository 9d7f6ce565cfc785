//! `serviceaccounts/token`: whose tokens live longer than is asked, whose shorter, and what such requests may name.

use std::time::Duration;

use http::Method;
use kedge_apiserver::Config;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn harness(config: Config) -> Harness {
    let harness = Harness::with(config).await;
    prepare(&harness).await;
    harness
}

/// Makes the account `robot` and the pod `web`, which runs as it.
pub(crate) async fn prepare(harness: &Harness) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    harness.post(ACCOUNTS, account).await.expect(201);
    let spec = json!({"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
    harness.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
}

/// Asks for a token of `robot`.
pub(crate) async fn ask(harness: &Harness, metadata: Value, spec: Value) -> Answer {
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata, "spec": spec});
    harness.call(Method::POST, &format!("{ACCOUNTS}/robot/token"), body).await
}

pub(crate) fn bound_to_the_pod(seconds: i64) -> Value {
    json!({"expirationSeconds": seconds, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}})
}

/// What stands in the token of an answer.
fn claims(answer: &Value) -> Value {
    use base64::Engine;
    let token = answer["status"]["token"].as_str().unwrap();
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// How long the token of an answer lives, and after how long its use is told, in seconds.
fn life(answer: &Value) -> (i64, Option<i64>) {
    let claims = claims(answer);
    let begin = claims["iat"].as_i64().unwrap();
    let warn_after = claims["kubernetes.io"]["warnafter"].as_i64();
    (claims["exp"].as_i64().unwrap() - begin, warn_after.map(|time| time - begin))
}

#[tokio::test]
async fn tokens_that_pods_did_not_choose_live_a_year() {
    let harness = harness(Config::default()).await;
    let answer = ask(&harness, json!({}), bound_to_the_pod(3607)).await.expect(201);
    assert_eq!(life(&answer), (31_536_000, Some(3607)));
    assert_eq!(answer["spec"]["expirationSeconds"], 3607);
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T04:04:12Z", "the kubelet renews it in time");
    for (spec, seconds) in [
        (bound_to_the_pod(3600), 3600),
        (json!({"expirationSeconds": 3607}), 3607),
        (
            json!({"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "name": "web"}, "audiences": ["vault"]}),
            3607,
        ),
    ] {
        let answer = ask(&harness, json!({}), spec.clone()).await.expect(201);
        assert_eq!(life(&answer), (seconds, None), "{spec}");
    }
    let mut named = bound_to_the_pod(3607);
    named["audiences"] = json!([ISSUER]);
    assert_eq!(life(&ask(&harness, json!({}), named).await.expect(201)).0, 31_536_000);
}

#[tokio::test]
async fn an_extended_token_is_good_after_its_first_end() {
    let harness = harness(Config::default()).await;
    let answer = ask(&harness, json!({}), bound_to_the_pod(3607)).await.expect(201);
    let spec = json!({"token": answer["status"]["token"]});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    for (later, stale) in [(0, 0), (86_400, 1)] {
        harness.clock.advance(Duration::from_secs(later));
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let status = harness.post(path, review.clone()).await.expect(201)["status"].clone();
        assert_eq!(status["authenticated"], true);
        let metrics = harness.get("/metrics").await.text;
        let line = format!("serviceaccount_stale_tokens_total {stale}");
        assert!(metrics.lines().any(|own| own == line), "{line}");
    }
}

#[tokio::test]
async fn tokens_live_no_longer_than_flags_say() {
    let longest = Duration::from_secs(7200);
    let harness = harness(Config {
        service_account_max_token_expiration: longest,
        service_account_extend_token_expiration: false,
        ..Config::default()
    })
    .await;
    let answer = ask(&harness, json!({}), bound_to_the_pod(86_400)).await;
    assert_eq!(answer.warnings(), ["299 - \"requested expiration of 86400 seconds shortened to 7200 seconds\""]);
    let answer = answer.expect(201);
    assert_eq!((life(&answer), &answer["spec"]["expirationSeconds"]), ((7200, None), &json!(7200)));
    assert_eq!(life(&ask(&harness, json!({}), bound_to_the_pod(3607)).await.expect(201)), (3607, None));
}

#[tokio::test]
async fn a_request_names_its_account_or_nothing() {
    let harness = harness(Config::default()).await;
    let account = harness.get(&format!("{ACCOUNTS}/robot")).await.expect(200);
    let answer = ask(&harness, json!({}), json!({})).await.expect(201);
    let metadata = json!({"name": "robot", "namespace": "default", "uid": account["metadata"]["uid"],
        "creationTimestamp": "2026-01-02T03:04:05Z"});
    assert_eq!(answer["metadata"], metadata);
    let other = ask(&harness, json!({"name": "other"}), json!({})).await;
    other.refused(
        422,
        "Invalid",
        "metadata.name: Invalid value: \"other\": must match the service account name if specified",
    );
    let other = ask(&harness, json!({"namespace": "other"}), json!({})).await;
    other.refused(400, "BadRequest", "does not match the namespace sent on the request");
    let other = ask(&harness, json!({"uid": "1"}), json!({})).await;
    let why = "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"robot\": the UID in the token request (1)";
    other.refused(409, "Conflict", why);
    let to = |api_version: &str, kind: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": api_version, "kind": kind, "name": "web", "uid": uid}});
    let other = ask(&harness, json!({}), to("apps/v1", "Deployment", "")).await;
    other.refused(400, "BadRequest", "cannot bind token to object of type apps/v1, Kind=Deployment");
    let other = ask(&harness, json!({}), to("v1", "Pod", "1")).await;
    other.refused(
        409,
        "Conflict",
        "Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (1)",
    );
}
