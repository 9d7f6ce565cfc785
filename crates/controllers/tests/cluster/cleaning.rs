//! What goes, and what stays, when its time has come: taint eviction, the pod garbage collector, protection, aggregation,
//! mirrored endpoints, ranges of Services, CronJobs. Time jumps where it matters.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Endpoints, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kedge_controllers::Config;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::harness::{Cluster, LEFT_ALONE, OUTCOME, template};

const START: &str = "2026-11-21T20:00:30Z";

fn pod(name: &str, annotation: Option<(&str, &str)>, spec: Value) -> Value {
    let mut pod = template("v1");
    pod["metadata"]["name"] = json!(name);
    if let Some((key, value)) = annotation {
        pod["metadata"]["annotations"] = json!({ key: value });
    }
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

fn names<K: Resource>(objects: &[std::sync::Arc<K>]) -> Vec<&str> {
    objects.iter().filter_map(|object| object.meta().name.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_taint_drives_out_who_does_not_tolerate_it_and_others_when_their_time_is_over() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    let toleration = |seconds: Option<i64>| {
        let toleration = json!({ "key": "gone", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds });
        json!({ "nodeName": "node-1", "tolerations": [toleration] })
    };
    cluster.create::<Pod>(pod("at-once", None, json!({ "nodeName": "node-1" }))).await;
    cluster.create::<Pod>(pod("later", None, toleration(Some(600)))).await;
    cluster.create::<Pod>(pod("never", None, toleration(None))).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    let taint = json!({ "spec": { "taints": [{ "key": "gone", "effect": "NoExecute" }] } });
    let before = tokio::time::Instant::now();
    nodes.patch("node-1", &PatchParams::default(), &Patch::Strategic(taint)).await.unwrap();
    cluster.until::<Pod>("one went at once", |pods| names(pods) == ["later", "never"]).await;
    cluster.until_event("Marking for deletion Pod default/at-once").await;
    assert!(before.elapsed().as_secs() < 600);
    cluster.until::<Pod>("another one went later", |pods| names(pods) == ["never"]).await;
    assert!(before.elapsed().as_secs() >= 600);
}

#[tokio::test(start_paused = true)]
async fn pods_go_when_their_devices_are_tainted() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    let slice = |taints: Value| {
        json!({ "metadata": { "name": "gpus" }, "spec": { "driver": "d.example.com", "nodeName": "node-1",
            "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "gpu-0", "taints": taints }] } })
    };
    cluster.create_in_cluster::<ResourceSlice>(slice(json!([]))).await;
    let toleration = json!({ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 600 });
    for (name, tolerations) in [("at-once", json!([])), ("later", json!([toleration]))] {
        let request = json!({ "name": "gpu", "exactly": { "deviceClassName": "example.com" } });
        let claim = json!({ "metadata": { "name": name }, "spec": { "devices": { "requests": [request] } } });
        cluster.create::<ResourceClaim>(claim).await;
        let entry = json!({ "name": "gpu", "resourceClaimName": name });
        let made =
            cluster.create::<Pod>(pod(name, None, json!({ "nodeName": "node-1", "resourceClaims": [entry] }))).await;
        let result = json!({ "request": "gpu", "driver": "d.example.com", "pool": "p", "device": "gpu-0",
            "tolerations": tolerations });
        let status = json!({ "status": { "allocation": { "devices": { "results": [result] } },
            "reservedFor": [{ "resource": "pods", "name": name, "uid": made.metadata.uid }] } });
        let claims = cluster.api::<ResourceClaim>();
        claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    let before = tokio::time::Instant::now();
    // It does not say since when, and gets the time at which it came.
    let tainted = slice(json!([{ "key": "broken", "effect": "NoExecute" }]));
    let slices = Api::<ResourceSlice>::all(cluster.client.clone());
    slices.patch("gpus", &PatchParams::default(), &Patch::Merge(tainted)).await.unwrap();
    cluster.until::<Pod>("one went at once", |pods| names(pods) == ["later"]).await;
    cluster.until_event("Marking for deletion").await;
    assert!(before.elapsed().as_secs() < 500);
    cluster.until::<Pod>("the other one went later", |pods| pods.is_empty()).await;
    assert!(before.elapsed().as_secs() >= 595);
}

#[tokio::test(start_paused = true)]
async fn pods_that_nobody_else_deletes_are_collected() {
    let cluster = Cluster::jumping(START, Config { terminated_pod_gc_threshold: 1, ..Config::default() }).await;
    cluster.add_node("node-2").await;
    cluster.create::<Pod>(pod("orphan", Some((LEFT_ALONE, "")), json!({ "nodeName": "node-2" }))).await;
    cluster.create::<Pod>(pod("stays", None, json!({}))).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    nodes.delete("node-2", &DeleteParams::default()).await.unwrap();
    cluster.until::<Pod>("no orphan", |pods| names(pods) == ["stays"]).await;

    for name in ["a", "b"] {
        let before = cluster.create::<Pod>(pod(name, Some((OUTCOME, "Failed")), json!({ "restartPolicy": "Never" })));
        before.await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    cluster.until::<Pod>("the older one of two ended ones went", |pods| names(pods) == ["b", "stays"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_used_outlives_its_deletion() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": { "requests": { "storage": "1Gi" } } });
    cluster.create::<PersistentVolumeClaim>(json!({ "metadata": { "name": "data" }, "spec": spec })).await;
    let mut volume = json!({ "metadata": { "name": "disk" }, "spec": { "capacity": { "storage": "1Gi" },
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "hostPath": { "path": "/srv" } } });
    volume["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    cluster.create_in_cluster::<PersistentVolume>(volume).await;
    let bound =
        |claim: &PersistentVolumeClaim| claim.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some("Bound"));
    cluster.until_one::<PersistentVolumeClaim>("data", "bound", bound).await;
    let volumes = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    cluster.create::<Pod>(pod("user", None, json!({ "nodeName": "node-1", "volumes": volumes }))).await;
    let has = |finalizers: &Option<Vec<String>>, name: &str| finalizers.iter().flatten().any(|found| found == name);
    cluster
        .until_one::<PersistentVolumeClaim>("data", "protected", |claim| {
            has(&claim.metadata.finalizers, "kubernetes.io/pvc-protection")
        })
        .await;
    cluster
        .until_one::<PersistentVolume>("disk", "protected", |volume| {
            has(&volume.metadata.finalizers, "kubernetes.io/pv-protection")
        })
        .await;
    cluster.delete::<PersistentVolumeClaim>("data", DeleteParams::default()).await;
    let api = Api::<PersistentVolume>::all(cluster.client.clone());
    api.delete("disk", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    cluster
        .until_one::<PersistentVolumeClaim>("data", "still there", |claim| claim.metadata.deletion_timestamp.is_some())
        .await;
    cluster
        .until_one::<PersistentVolume>("disk", "still there", |volume| volume.metadata.deletion_timestamp.is_some())
        .await;
    cluster.delete::<Pod>("user", DeleteParams::default()).await;
    cluster.until::<PersistentVolumeClaim>("no claim", |claims| claims.is_empty()).await;
    cluster.until::<PersistentVolume>("no volume", |volumes| volumes.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_of_attributes_outlives_its_deletion_while_a_claim_names_it() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    cluster
        .create_in_cluster::<VolumeAttributesClass>(json!({ "metadata": { "name": "fast" }, "driverName": "d",
            "parameters": { "iops": "1000" } }))
        .await;
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "volumeAttributesClassName": "fast",
        "resources": { "requests": { "storage": "1Gi" } } });
    cluster.create::<PersistentVolumeClaim>(json!({ "metadata": { "name": "data" }, "spec": spec })).await;
    cluster
        .until_one::<VolumeAttributesClass>("fast", "protected", |class| {
            class.metadata.finalizers.iter().flatten().any(|found| found == "kubernetes.io/vac-protection")
        })
        .await;
    let classes = Api::<VolumeAttributesClass>::all(cluster.client.clone());
    classes.delete("fast", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    cluster
        .until_one::<VolumeAttributesClass>("fast", "still there", |class| class.metadata.deletion_timestamp.is_some())
        .await;
    cluster.delete::<PersistentVolumeClaim>("data", DeleteParams::default()).await;
    cluster.until::<VolumeAttributesClass>("no class", |classes| classes.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_role_has_the_rules_of_those_that_it_selects() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    let rule = |resource: &str| json!({ "apiGroups": [""], "resources": [resource], "verbs": ["get"] });
    let resources = |role: &ClusterRole| -> Vec<String> {
        role.rules.iter().flatten().flat_map(|rule| rule.resources.clone().unwrap_or_default()).collect()
    };
    let selector = json!({ "matchLabels": { "aggregate": "yes" } });
    cluster
        .create_in_cluster::<ClusterRole>(json!({ "metadata": { "name": "all" }, "rules": [rule("nodes")],
            "aggregationRule": { "clusterRoleSelectors": [selector] } }))
        .await;
    cluster.until_one::<ClusterRole>("all", "no rules", |role| resources(role).is_empty()).await;
    for (name, resource) in [("b", "pods"), ("a", "services")] {
        cluster
            .create_in_cluster::<ClusterRole>(json!({ "metadata": { "name": name, "labels": { "aggregate": "yes" } },
                "rules": [rule(resource)] }))
            .await;
    }
    cluster.until_one::<ClusterRole>("all", "both", |role| resources(role) == ["services", "pods"]).await;
    let roles = Api::<ClusterRole>::all(cluster.client.clone());
    roles.delete("a", &DeleteParams::default()).await.unwrap();
    cluster.until_one::<ClusterRole>("all", "one", |role| resources(role) == ["pods"]).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_made_by_hand_have_slices() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    cluster
        .create::<Service>(json!({ "metadata": { "name": "outside" }, "spec": { "ports": [{ "port": 80 }] } }))
        .await;
    let subset =
        |address: &str| json!({ "subsets": [{ "addresses": [{ "ip": address }], "ports": [{ "port": 8080 }] }] });
    let mut endpoints = subset("192.0.2.1");
    endpoints["metadata"] = json!({ "name": "outside" });
    cluster.create::<Endpoints>(endpoints).await;
    let mirrored = |slices: &[std::sync::Arc<EndpointSlice>]| -> Vec<String> {
        let by = "endpointslicemirroring-controller.k8s.io";
        let labels = |slice: &EndpointSlice| slice.metadata.labels.clone().unwrap_or_default();
        let ours = slices.iter().filter(|slice| {
            labels(slice).get("endpointslice.kubernetes.io/managed-by").is_some_and(|manager| manager == by)
        });
        ours.flat_map(|slice| slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()))
            .collect()
    };
    cluster.until::<EndpointSlice>("a slice", |slices| mirrored(slices) == ["192.0.2.1"]).await;
    cluster.merge::<Endpoints>("outside", subset("192.0.2.2")).await;
    cluster.until::<EndpointSlice>("its address", |slices| mirrored(slices) == ["192.0.2.2"]).await;
    cluster.delete::<Endpoints>("outside", DeleteParams::default()).await;
    cluster.until::<EndpointSlice>("no slice", |slices| mirrored(slices).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_range_of_services_is_ready_and_goes() {
    let cluster = Cluster::jumping(START, Config::default()).await;
    cluster
        .create_in_cluster::<ServiceCIDR>(
            json!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["192.0.2.0/24"] } }),
        )
        .await;
    cluster
        .until_one::<ServiceCIDR>("more", "ready", |range| {
            let conditions = range.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            let is_ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
            is_ready && range.metadata.finalizers.iter().flatten().count() == 1
        })
        .await;
    let ranges = Api::<ServiceCIDR>::all(cluster.client.clone());
    ranges.delete("more", &DeleteParams::default()).await.unwrap();
    cluster.until::<ServiceCIDR>("no such range", |ranges| !names(ranges).contains(&"more")).await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_jobs_in_its_time_zone_and_keeps_the_last_ones() {
    // 20:00 in London is 05:00 in Tokyo.
    let cluster = Cluster::jumping(START, Config::default()).await;
    let job = json!({ "spec": { "template": {
        "metadata": { "annotations": { OUTCOME: "Succeeded" } },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "x" }] } } } });
    let cron = |name: &str, more: Value| {
        let mut spec = json!({ "schedule": "*/10 5 * * *", "timeZone": "Asia/Tokyo", "jobTemplate": job,
            "successfulJobsHistoryLimit": 2 });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "metadata": { "name": name }, "spec": spec })
    };
    cluster.create::<CronJob>(cron("tokyo", json!({}))).await;
    cluster.create::<CronJob>(cron("asleep", json!({ "suspend": true }))).await;
    cluster
        .until_one::<CronJob>("tokyo", "the last one of the hour", |cron| {
            let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
            last.is_some_and(|time| time.0.to_string() == "2026-11-21T20:50:00Z")
        })
        .await;
    cluster
        .until::<Job>("the last two", |jobs| {
            let done = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
            jobs.len() == 2
                && jobs.iter().all(|job| done(job) && names(std::slice::from_ref(job))[0].starts_with("tokyo-"))
        })
        .await;
    cluster.until_event("Created job tokyo-").await;
    let asleep = cluster.until_one::<CronJob>("asleep", "there", |_| true).await;
    assert!(asleep.status.as_ref().is_none_or(|status| status.last_schedule_time.is_none()));
}
