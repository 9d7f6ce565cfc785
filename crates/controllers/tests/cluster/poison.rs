//! Objects whose writes are always refused, of each family of controllers: they keep no others waiting.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kedge_controllers::Config;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use super::harness::{Cluster, OUTCOME};

/// More than any controller has workers.
const POISONED: usize = 6;

/// Whatever controllers write of objects called so, or in namespaces called so, is refused.
async fn refuse_poison(cluster: &Cluster) {
    let rule = |groups: Value, resources: Value| json!({"apiGroups": groups, "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources});
    let is_poison = "object.metadata.name.startsWith('poison') || \
        has(object.metadata.namespace) && object.metadata.namespace.startsWith('poison')";
    let policy = json!({"metadata": {"name": "no-poison"}, "spec": {
        "matchConstraints": {"resourceRules": [rule(json!(["*"]), json!(["*/*"]))],
            "excludeResourceRules": [rule(json!(["", "events.k8s.io"]), json!(["events"]))]},
        "matchConditions": [{"name": "controllers",
            "expression": "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"}],
        "validations": [{"expression": format!("!({is_poison})"), "message": "it is poison"}]}});
    cluster.create_in_cluster::<ValidatingAdmissionPolicy>(policy).await;
    let binding =
        json!({"metadata": {"name": "no-poison"}, "spec": {"policyName": "no-poison", "validationActions": ["Deny"]}});
    cluster.create_in_cluster::<ValidatingAdmissionPolicyBinding>(binding).await;
}

fn template(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "main", "image": "x"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"labels": {"app": name}}, "spec": spec})
}

/// One object of each family.
async fn create_all(cluster: &Cluster, name: &str) {
    let owner = |kind: &str, more: Value| {
        let own = format!("{name}-{kind}");
        let mut spec = json!({"selector": {"matchLabels": {"app": own}}, "template": template(&own, json!({}))});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": own}, "spec": spec})
    };
    cluster.create::<Deployment>(owner("deployment", json!({}))).await;
    cluster.create::<ReplicaSet>(owner("set", json!({}))).await;
    // Nobody takes the taint off that nodes begin with.
    let mut daemon = owner("daemon", json!({}));
    daemon["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists", "effect": "NoSchedule"}]);
    cluster.create::<DaemonSet>(daemon).await;
    cluster.create::<StatefulSet>(owner("stateful", json!({"serviceName": "none"}))).await;
    let replication = format!("{name}-replication");
    let spec = json!({"selector": {"app": replication}, "template": template(&replication, json!({}))});
    cluster.create::<ReplicationController>(json!({"metadata": {"name": replication}, "spec": spec})).await;
    let mut once = template(&format!("{name}-job"), json!({"restartPolicy": "Never"}));
    once["metadata"]["annotations"] = json!({OUTCOME: "Succeeded"});
    let job = json!({"template": once});
    cluster.create::<Job>(json!({"metadata": {"name": format!("{name}-job")}, "spec": job})).await;
    let cron = json!({"schedule": "* * * * *", "jobTemplate": {"spec": job}});
    cluster.create::<CronJob>(json!({"metadata": {"name": format!("{name}-cron")}, "spec": cron})).await;
    let service = json!({"selector": {"app": "good-deployment"}, "ports": [{"port": 80}]});
    cluster.create::<Service>(json!({"metadata": {"name": format!("{name}-service")}, "spec": service})).await;
    let budget = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "good-deployment"}}});
    cluster
        .create::<PodDisruptionBudget>(json!({"metadata": {"name": format!("{name}-budget")}, "spec": budget}))
        .await;
    let quota = json!({"hard": {"count/secrets": "100"}});
    cluster.create::<ResourceQuota>(json!({"metadata": {"name": format!("{name}-quota")}, "spec": quota})).await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "good-deployment"});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let scaler = json!({"scaleTargetRef": target, "maxReplicas": 1, "metrics": [metric]});
    let scaler = json!({"metadata": {"name": format!("{name}-scaler")}, "spec": scaler});
    cluster.create::<HorizontalPodAutoscaler>(scaler).await;
    let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
        "storageClassName": name, "claimRef": {"namespace": "default", "name": format!("{name}-claim")}});
    let volume = json!({"metadata": {"name": format!("{name}-volume")}, "spec": volume});
    cluster.create_in_cluster::<PersistentVolume>(volume).await;
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": name,
        "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": format!("{name}-claim")}, "spec": claim});
    cluster.create::<PersistentVolumeClaim>(claim).await;
    // No daemon runs there.
    let taints = json!([{"key": "other", "effect": "NoExecute"}]);
    let node = json!({"metadata": {"name": format!("{name}-node")}, "spec": {"taints": taints}});
    cluster.create_in_cluster::<Node>(node).await;
    for kind in ["space", "leaving"] {
        cluster.create_in_cluster::<Namespace>(json!({"metadata": {"name": format!("{name}-{kind}")}})).await;
    }
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    namespaces.delete(&format!("{name}-leaving"), &DeleteParams::default()).await.unwrap();
    let owner = owner("owner", json!({"replicas": 0}));
    cluster.create::<Deployment>(owner).await;
    cluster.delete::<Deployment>(&format!("{name}-owner"), DeleteParams::foreground()).await;
}

fn is_called(name: Option<&String>, prefix: &str) -> bool {
    name.is_some_and(|name| name.starts_with(prefix))
}

#[tokio::test(start_paused = true)]
async fn what_is_always_refused_keeps_nobody_waiting() {
    let config = Config {
        cluster_cidrs: vec!["10.244.0.0/16".to_owned()],
        root_ca_pem: tokio::sync::watch::channel("PEM".to_owned()).1,
        ..Config::default()
    };
    let cluster = Cluster::jumping("2026-01-01T00:00:30Z", config).await;
    refuse_poison(&cluster).await;
    for number in 0..POISONED {
        create_all(&cluster, &format!("poison-{number}")).await;
    }
    create_all(&cluster, "good").await;

    let one = Some(1);
    cluster
        .until_one::<Deployment>("good-deployment", "available", |it| {
            it.status.as_ref().unwrap().available_replicas == one
        })
        .await;
    cluster.until_one::<ReplicaSet>("good-set", "ready", |it| it.status.as_ref().unwrap().ready_replicas == one).await;
    cluster.until_one::<DaemonSet>("good-daemon", "ready", |it| it.status.as_ref().unwrap().number_ready == 1).await;
    cluster
        .until_one::<StatefulSet>("good-stateful", "ready", |it| it.status.as_ref().unwrap().ready_replicas == one)
        .await;
    cluster
        .until_one::<ReplicationController>("good-replication", "ready", |it| {
            it.status.as_ref().unwrap().ready_replicas == one
        })
        .await;
    let succeeded = |it: &Job| it.status.as_ref().unwrap().succeeded == one;
    cluster.until_one::<Job>("good-job", "done", succeeded).await;
    cluster
        .until::<Job>("a Job in time", |all| {
            all.iter().any(|it| is_called(it.metadata.name.as_ref(), "good-cron-") && succeeded(it))
        })
        .await;
    cluster
        .until::<EndpointSlice>("endpoints", |all| {
            let has_endpoints =
                |it: &EndpointSlice| it.endpoints.as_ref().is_some_and(|endpoints| endpoints.len() == 1);
            all.iter().any(|it| is_called(it.metadata.name.as_ref(), "good-service-") && has_endpoints(it))
        })
        .await;
    cluster
        .until_one::<PodDisruptionBudget>("good-budget", "counted", |it| {
            it.status.as_ref().is_some_and(|status| status.current_healthy == Some(1))
        })
        .await;
    cluster
        .until_one::<ResourceQuota>("good-quota", "counted", |it| {
            it.status.as_ref().is_some_and(|status| status.hard.is_some())
        })
        .await;
    cluster
        .until_one::<HorizontalPodAutoscaler>("good-scaler", "looked at", |it| {
            it.status.as_ref().is_some_and(|status| status.conditions.is_some())
        })
        .await;
    let bound = |it: &PersistentVolumeClaim| it.status.as_ref().unwrap().phase.as_deref() == Some("Bound");
    cluster.until_one::<PersistentVolumeClaim>("good-claim", "bound", bound).await;
    cluster.until_one::<Node>("good-node", "a range", |it| it.spec.as_ref().unwrap().pod_cidr.is_some()).await;
    let of_space = |namespace: Option<&String>| namespace.is_some_and(|namespace| namespace == "good-space");
    cluster
        .until::<ServiceAccount>("an account", |all| all.iter().any(|it| of_space(it.metadata.namespace.as_ref())))
        .await;
    cluster.until::<ConfigMap>("a bundle", |all| all.iter().any(|it| of_space(it.metadata.namespace.as_ref()))).await;
    cluster
        .until::<Namespace>("one left", |all| all.iter().all(|it| it.metadata.name.as_deref() != Some("good-leaving")))
        .await;
    cluster
        .until::<Deployment>("an owner went", |all| {
            all.iter().all(|it| it.metadata.name.as_deref() != Some("good-owner"))
        })
        .await;
    expect_poison_untouched(&cluster).await;
}

async fn expect_poison_untouched(cluster: &Cluster) {
    let pods = cluster.until::<Pod>("pods", |_| true).await;
    assert!(!pods.iter().any(|pod| is_called(pod.metadata.name.as_ref(), "poison")), "nothing was refused");
    let nodes = cluster.until::<Node>("nodes", |_| true).await;
    let has_range = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
    assert!(!nodes.iter().any(|node| is_called(node.metadata.name.as_ref(), "poison") && has_range(node)));
    cluster.until_event("it is poison").await;
    let spaces = cluster.until::<Namespace>("namespaces", |_| true).await;
    let left = spaces.iter().filter(|space| is_called(space.metadata.name.as_ref(), "poison"));
    assert_eq!(left.count(), 2 * POISONED);
}
