//! Namespaces: what is in them from the start, and their end.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::harness::{Cluster, object, template};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_emptied_and_let_go() {
    let cluster = Cluster::start().await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let team = object(json!({ "metadata": { "name": "team" } }));
    namespaces.create(&PostParams::default(), &team).await.unwrap();
    cluster
        .until::<ServiceAccount>("a default account", |all| {
            all.iter().any(|account| account.metadata.namespace.as_deref() == Some("team"))
        })
        .await;
    let maps = cluster
        .until::<ConfigMap>("the root CA", |all| {
            all.iter().any(|map| map.metadata.namespace.as_deref() == Some("team"))
        })
        .await;
    let map = maps.iter().find(|map| map.metadata.namespace.as_deref() == Some("team")).unwrap();
    assert_eq!(
        (map.metadata.name.as_deref(), map.data.as_ref().unwrap()["ca.crt"].as_str()),
        (Some("kube-root-ca.crt"), "PEM")
    );

    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "team");
    let mut value = template("v1");
    value["metadata"]["name"] = json!("web");
    pods.create(&PostParams::default(), &object(value)).await.unwrap();
    let held = object(json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } }));
    let config_maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "team");
    config_maps.create(&PostParams::default(), &held).await.unwrap();

    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    let remaining = cluster
        .until_one::<Namespace>("team", "says what remains", |namespace| {
            let conditions =
                namespace.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True")
        })
        .await;
    assert_eq!(remaining.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    config_maps.patch("held", &PatchParams::default(), &release).await.unwrap();
    cluster
        .until::<Namespace>("gone", |all| {
            all.iter().all(|namespace| namespace.metadata.name.as_deref() != Some("team"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_controllers_run_and_say_so() {
    let cluster = Cluster::start().await;
    cluster.until::<ServiceAccount>("default accounts", |all| all.len() >= 4).await;
    let report = |cluster: &Cluster| {
        let reports = cluster.board.reports();
        reports.into_iter().find(|report| report.component == "kube-controller-manager").unwrap()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while report(&cluster).state != kedge_meta::ComponentState::Running {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", report(&cluster));
        tokio::task::yield_now().await;
    }
}
