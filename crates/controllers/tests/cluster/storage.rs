//! Claims, volumes and attachments: what the binder, the ephemeral volume controller, the protection controllers and the
//! attach/detach controller do with the API.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::harness::{Cluster, object};

fn volume(name: &str, class: &str, source: Value) -> PersistentVolume {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "test": name } },
        "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": class },
    });
    value["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    object(value)
}

fn claim(name: &str, class: Option<&str>) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "test": name } },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                  "resources": { "requests": { "storage": "1Gi" } } },
    })
}

fn phase_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn phase_of(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

async fn class(cluster: &Cluster, value: Value) {
    let classes = Api::<StorageClass>::all(cluster.client.clone());
    classes.create(&PostParams::default(), &object(value)).await.unwrap();
}

/// The conformance suite's life of a volume and a claim: made, found, labelled, deleted, made again, deleted together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_and_a_claim_live_and_go() {
    let cluster = Cluster::start().await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    let claims = cluster.api::<PersistentVolumeClaim>();
    let none = ListParams::default().labels("test=none");
    for round in ["first", "second"] {
        let path = json!({ "hostPath": { "path": "/srv" } });
        let made = volumes.create(&PostParams::default(), &volume(round, "life", path)).await.unwrap();
        cluster.create::<PersistentVolumeClaim>(claim(round, Some("life"))).await;
        let bound =
            cluster.until_one::<PersistentVolumeClaim>(round, "bound", |claim| phase_of_claim(claim) == "Bound").await;
        assert_eq!(bound.spec.as_ref().unwrap().volume_name.as_deref(), Some(round));
        let by_label = ListParams::default().labels(&format!("test={round}"));
        assert_eq!(volumes.list(&by_label).await.unwrap().items.len(), 1);
        assert_eq!(claims.list(&by_label).await.unwrap().items[0].metadata.uid, bound.metadata.uid);
        assert!(volumes.list(&none).await.unwrap().items.is_empty());
        let label = json!({ "metadata": { "labels": { "patched": "yes" } } });
        let patched = volumes.patch(round, &PatchParams::default(), &Patch::Merge(label.clone())).await.unwrap();
        assert_eq!(patched.metadata.labels.as_ref().unwrap()["patched"], "yes");
        assert_eq!(patched.metadata.uid, made.metadata.uid);
        cluster.merge::<PersistentVolumeClaim>(round, label).await;
        let mut updated = volumes.get(round).await.unwrap();
        updated.metadata.labels.get_or_insert_default().insert("updated".to_owned(), "yes".to_owned());
        let updated = volumes.replace(round, &PostParams::default(), &updated).await.unwrap();
        assert_eq!(updated.metadata.labels.as_ref().unwrap()["updated"], "yes");
        if round == "first" {
            cluster.delete::<PersistentVolumeClaim>(round, DeleteParams::default()).await;
            volumes.delete(round, &DeleteParams::default()).await.unwrap();
        } else {
            claims.delete_collection(&DeleteParams::default(), &by_label).await.unwrap();
            volumes.delete_collection(&DeleteParams::default(), &by_label).await.unwrap();
        }
        cluster.until::<PersistentVolumeClaim>("no claim", |claims| claims.is_empty()).await;
        cluster.until::<PersistentVolume>("no volume", |volumes| volumes.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_say_what_they_wait_for() {
    let cluster = Cluster::start().await;
    class(&cluster, json!({ "metadata": { "name": "now" }, "provisioner": "example.com/p" })).await;
    let late = "WaitForFirstConsumer";
    let value = json!({ "metadata": { "name": "late" }, "provisioner": "example.com/p", "volumeBindingMode": late });
    class(&cluster, value).await;
    for (name, named) in [("now", Some("now")), ("late", Some("late")), ("none", Some("")), ("open", None)] {
        cluster.create::<PersistentVolumeClaim>(claim(name, named)).await;
    }
    cluster.until_event("Waiting for a volume to be created either by the external provisioner 'example.com/p'").await;
    cluster.until_event("waiting for first consumer to be created before binding").await;
    cluster.until_event("no persistent volumes available for this claim and no storage class is set").await;
    cluster
        .until_one::<PersistentVolumeClaim>("now", "both annotations", |claim| {
            let annotations = claim.metadata.annotations.clone().unwrap_or_default();
            ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"]
                .iter()
                .all(|name| annotations.get(*name).is_some_and(|value| value == "example.com/p"))
        })
        .await;
    // A default class that comes later is taken by claims that name none, and by no others.
    let default = json!({ "storageclass.kubernetes.io/is-default-class": "true" });
    let value = json!({ "metadata": { "name": "std", "annotations": default }, "provisioner": "example.com/p" });
    class(&cluster, value).await;
    let of = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    cluster.until_one::<PersistentVolumeClaim>("open", "a class", |claim| of(claim).as_deref() == Some("std")).await;
    let none = cluster.api::<PersistentVolumeClaim>().get("none").await.unwrap();
    assert_eq!(of(&none).as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_volumes_go_as_their_policy_says() {
    let cluster = Cluster::start().await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    for policy in ["Retain", "Delete", "Recycle"] {
        let name = policy.to_lowercase();
        let source = json!({ "hostPath": { "path": "/srv" }, "persistentVolumeReclaimPolicy": policy });
        volumes.create(&PostParams::default(), &volume(&name, &name, source)).await.unwrap();
        cluster.create::<PersistentVolumeClaim>(claim(&name, Some(&name))).await;
        cluster.until_one::<PersistentVolume>(&name, "bound", |volume| phase_of(volume) == "Bound").await;
        cluster.delete::<PersistentVolumeClaim>(&name, DeleteParams::default()).await;
    }
    cluster.until_one::<PersistentVolume>("retain", "released", |volume| phase_of(volume) == "Released").await;
    let failed = cluster.until_one::<PersistentVolume>("delete", "failed", |volume| phase_of(volume) == "Failed").await;
    let text = "error getting deleter volume plugin for volume \"delete\": no deletable volume plugin matched";
    assert_eq!(failed.status.as_ref().unwrap().message.as_deref(), Some(text));
    cluster.until_event(text).await;
    cluster.until_event("No recycler plugin found for the volume!").await;
    // Who frees a retained volume by hand gets it back.
    let free = json!({ "spec": { "claimRef": null } });
    volumes.patch("retain", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    cluster.until_one::<PersistentVolume>("retain", "available", |volume| phase_of(volume) == "Available").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_volumes_get_claims_that_go_with_their_pod() {
    let cluster = Cluster::start().await;
    cluster.create::<PersistentVolumeClaim>(claim("stranger-tmp", Some("none"))).await;
    let template = json!({ "metadata": { "labels": { "kind": "tmp" } }, "spec": claim("", Some("none"))["spec"] });
    let pod = |name: &str| {
        json!({
            "metadata": { "name": name },
            "spec": {
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "tmp", "ephemeral": { "volumeClaimTemplate": template } }],
            },
        })
    };
    let made = cluster.create::<Pod>(pod("web")).await;
    let claim = cluster.until_one::<PersistentVolumeClaim>("web-tmp", "a claim", |_| true).await;
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["kind"], "tmp");
    let owner = &claim.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), Some(&owner.uid), owner.controller),
        ("Pod", made.metadata.uid.as_ref(), Some(true))
    );
    // A claim of the name that is somebody else's is left alone.
    cluster.create::<Pod>(pod("stranger")).await;
    cluster.delete::<Pod>("web", DeleteParams::default()).await;
    cluster
        .until::<PersistentVolumeClaim>("only the stranger's claim", |claims| {
            claims.len() == 1 && claims[0].metadata.name.as_deref() == Some("stranger-tmp")
        })
        .await;
    let stranger = cluster.api::<PersistentVolumeClaim>().get("stranger-tmp").await.unwrap();
    assert_eq!(stranger.metadata.owner_references, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csi_volumes_are_attached_where_their_pods_are() {
    let cluster = Cluster::start().await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    let source = json!({ "csi": { "driver": "d.example.com", "volumeHandle": "disk-1" } });
    volumes.create(&PostParams::default(), &volume("disk", "csi", source)).await.unwrap();
    cluster.create::<PersistentVolumeClaim>(claim("disk", Some("csi"))).await;
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": "disk" } }],
            },
        }))
        .await;
    let made = cluster.until::<VolumeAttachment>("an attachment", |attachments| attachments.len() == 1).await;
    assert_eq!((made[0].spec.attacher.as_str(), made[0].spec.node_name.as_str()), ("d.example.com", "node-1"));
    assert_eq!(made[0].spec.source.persistent_volume_name.as_deref(), Some("disk"));
    let name = made[0].metadata.name.clone().unwrap();
    // The driver's attacher fails once, and then does it.
    let attachments = Api::<VolumeAttachment>::all(cluster.client.clone());
    let failed = json!({ "status": { "attached": false, "attachError": { "message": "no such disk" } } });
    attachments.patch_status(&name, &PatchParams::default(), &Patch::Merge(failed)).await.unwrap();
    cluster.until_event("AttachVolume.Attach failed for volume \"disk\" : no such disk").await;
    let done = json!({ "status": { "attached": true, "attachError": null } });
    attachments.patch_status(&name, &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    cluster.until_event("AttachVolume.Attach succeeded for volume \"disk\"").await;
    let attached = |node: &Node| {
        let volumes = node.status.as_ref().and_then(|status| status.volumes_attached.clone()).unwrap_or_default();
        volumes.iter().map(|volume| volume.name.clone()).collect::<Vec<_>>()
    };
    let expected = ["kubernetes.io/csi/d.example.com^disk-1"];
    cluster.until_one::<Node>("node-1", "a report", |node| attached(node) == expected).await;
    // While the node uses the volume, it stays.
    let nodes = Api::<Node>::all(cluster.client.clone());
    let uses = |names: &[&str]| Patch::Merge(json!({ "status": { "volumesInUse": names } }));
    nodes.patch_status("node-1", &PatchParams::default(), &uses(&expected)).await.unwrap();
    cluster.delete::<Pod>("web", DeleteParams::default()).await;
    cluster.until::<Pod>("no pod", |pods| pods.is_empty()).await;
    assert!(attachments.get_opt(&name).await.unwrap().is_some());
    nodes.patch_status("node-1", &PatchParams::default(), &uses(&[])).await.unwrap();
    cluster.until::<VolumeAttachment>("no attachment", |attachments| attachments.is_empty()).await;
    cluster.until_one::<Node>("node-1", "an empty report", |node| attached(node).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_claims_for_devices_that_go_with_them() {
    let cluster = Cluster::start().await;
    let request = json!({ "name": "gpu", "exactly": { "deviceClassName": "example.com" } });
    let pod = json!({
        "metadata": { "name": "web" },
        "spec": {
            "containers": [{ "name": "c", "image": "i", "resources": { "claims": [{ "name": "gpu" }] } }],
            "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "gpus" }],
        },
    });
    let made = cluster.create::<Pod>(pod).await;
    cluster.until_event("resourceclaimtemplate.resource.k8s.io \"gpus\" not found").await;
    cluster
        .create::<ResourceClaimTemplate>(json!({
            "metadata": { "name": "gpus" }, "spec": { "spec": { "devices": { "requests": [request] } } },
        }))
        .await;
    let claims = cluster.until::<ResourceClaim>("a claim", |claims| claims.len() == 1).await;
    let name = claims[0].metadata.name.clone().unwrap();
    assert!(name.starts_with("web-gpu-"), "{name}");
    cluster
        .until_one::<Pod>("web", "its claim's name", |pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
            statuses.is_some_and(|all| all.len() == 1 && all[0].resource_claim_name.as_ref() == Some(&name))
        })
        .await;
    // Somebody allocates it for the pod; with the pod it is taken back, and the claim goes.
    let claims = cluster.api::<ResourceClaim>();
    let protect = json!({ "metadata": { "finalizers": ["resource.kubernetes.io/delete-protection"] } });
    cluster.merge::<ResourceClaim>(&name, protect).await;
    let result = json!({ "request": "gpu", "driver": "d.example.com", "pool": "p", "device": "gpu-0" });
    let allocated = json!({ "status": {
        "allocation": { "devices": { "results": [result] } },
        "reservedFor": [{ "resource": "pods", "name": "web", "uid": made.metadata.uid }],
    } });
    claims.patch_status(&name, &PatchParams::default(), &Patch::Merge(allocated)).await.unwrap();
    cluster.delete::<Pod>("web", DeleteParams::default()).await;
    cluster.until::<ResourceClaim>("no claim", |claims| claims.is_empty()).await;
}
