//! Secrets that hold tokens of accounts: filled, taken by the API server, ended and cleaned up.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kedge_controllers::Config;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::harness::{Cluster, object, template};

const MARK: &str = "kubernetes.io/legacy-token-invalid-since";

fn token_secret(name: &str, account: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"})
}

fn data(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(String::from_utf8(value.0.clone()).unwrap())
}

fn is_named(secret: &Secret, name: &str) -> bool {
    secret.metadata.name.as_deref() == Some(name)
}

async fn username(cluster: &Cluster, token: &str) -> Option<String> {
    let review = object(json!({"spec": {"token": token}}));
    let reviews = Api::<TokenReview>::all(cluster.client.clone());
    let status = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    status.user.and_then(|user| user.username)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_holds_a_token_while_its_account_is_there() {
    let cluster = Cluster::start().await;
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    cluster.create::<Secret>(token_secret("robot-token", "robot")).await;
    let filled = cluster.until_one::<Secret>("robot-token", "a token", |secret| data(secret, "token").is_some()).await;
    assert_eq!(data(&filled, "ca.crt").as_deref(), Some("PEM"));
    assert_eq!(data(&filled, "namespace").as_deref(), Some("default"));
    let token = data(&filled, "token").unwrap();
    assert_eq!(username(&cluster, &token).await.as_deref(), Some("system:serviceaccount:default:robot"));
    // A Secret that goes is not named any more, and its token is good for nothing.
    cluster.merge::<ServiceAccount>("robot", json!({"secrets": [{"name": "robot-token"}, {"name": "other"}]})).await;
    cluster
        .until_one::<ServiceAccount>("robot", "named Secrets", |account| {
            account.secrets.as_ref().is_some_and(|all| all.len() == 2)
        })
        .await;
    cluster.delete::<Secret>("robot-token", DeleteParams::default()).await;
    cluster
        .until_one::<ServiceAccount>("robot", "the other Secret alone", |account| {
            account.secrets.iter().flatten().map(|named| named.name.as_deref()).eq([Some("other")])
        })
        .await;
    assert_eq!(username(&cluster, &token).await, None);
    // Secrets go with their account, and those of an account that never was go at once.
    cluster.create::<Secret>(token_secret("second", "robot")).await;
    cluster.until_one::<Secret>("second", "a token", |secret| data(secret, "token").is_some()).await;
    cluster.delete::<ServiceAccount>("robot", DeleteParams::default()).await;
    cluster.create::<Secret>(token_secret("stray", "nobody")).await;
    let gone = |all: &[Arc<Secret>]| !all.iter().any(|secret| is_named(secret, "second") || is_named(secret, "stray"));
    cluster.until::<Secret>("no Secrets of accounts that are not there", gone).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_uses_are_marked_and_go() {
    let config = Config { legacy_token_clean_up_period: Duration::from_secs(3600), ..Config::default() };
    let cluster = Cluster::jumping("2026-03-01T10:00:00Z", config).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "kube-system");
    let tracking = "kube-apiserver-legacy-service-account-token-tracking";
    let for_long = Patch::Merge(json!({"data": {"since": "2020-01-01"}}));
    maps.patch(tracking, &PatchParams::default(), &for_long).await.unwrap();
    let named = json!([{"name": "unused"}, {"name": "mounted"}, {"name": "marked"}]);
    cluster.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}, "secrets": named})).await;
    for name in ["unused", "mounted", "marked", "on-purpose"] {
        let mut secret = token_secret(name, "robot");
        if name == "marked" {
            secret["metadata"]["labels"] = json!({MARK: "2025-01-01"});
        }
        cluster.create::<Secret>(secret).await;
        cluster.until_one::<Secret>(name, "a token", |secret| data(secret, "token").is_some()).await;
    }
    let mut spec = template("nginx")["spec"].clone();
    spec["volumes"] = json!([{"name": "token", "secret": {"secretName": "mounted"}}]);
    cluster.create::<Pod>(json!({"metadata": {"name": "user"}, "spec": spec})).await;
    let mark = |secret: &Secret| secret.metadata.labels.as_ref().and_then(|labels| labels.get(MARK)).cloned();
    let unused = cluster.until_one::<Secret>("unused", "a mark", |secret| mark(secret).is_some()).await;
    assert_eq!(mark(&unused).as_deref(), Some("2026-03-01"));
    assert_eq!(username(&cluster, &data(&unused, "token").unwrap()).await, None);
    let all = cluster.until::<Secret>("an old mark", |all| !all.iter().any(|one| is_named(one, "marked"))).await;
    for name in ["mounted", "on-purpose"] {
        assert!(all.iter().any(|secret| is_named(secret, name) && mark(secret).is_none()), "{name}");
    }
}
