//! The provisioner with the real API server and controllers, over real directories.

#![allow(clippy::unwrap_used)]

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::Informers;
use kedge_control_plane::ControlPlane;
use kedge_meta::UserInfo;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const BINDER: &str = "system:serviceaccount:kube-system:persistent-volume-binder";

/// A control plane with one node, and a directory for its volumes.
struct World {
    plane: ControlPlane,
    dir: tempfile::TempDir,
}

impl Deref for World {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.plane
    }
}

/// A provisioner that runs until it is dropped, at whatever it does then: as if it were killed.
struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl World {
    async fn new() -> Self {
        let plane = ControlPlane::start().await;
        let manager = plane.client.clone();
        let deps = kedge_controllers::Deps {
            client: plane.client.clone(),
            client_for: Arc::new(move |_| manager.clone()),
            informers: plane.informers.clone(),
            status: plane.board.clone(),
            clock: plane.clock.clone(),
            signer: None,
            token_keys: None,
            metrics: kedge_controllers::ControllerMetrics::default(),
        };
        let token = plane.shutdown.clone();
        let config = kedge_controllers::Config {
            controllers: vec![
                "persistentvolume-binder-controller".to_owned(),
                "persistentvolumeclaim-protection-controller".to_owned(),
                "persistentvolume-protection-controller".to_owned(),
            ],
            ..kedge_controllers::Config::default()
        };
        tokio::spawn(async move { kedge_controllers::run(config, deps, token).await.unwrap() });
        let node = json!({"metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "host-1"}}});
        plane.create_in_cluster::<Node>(node).await;
        Self { plane, dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("volumes")
    }

    /// Starts the provisioner, with the rights that it has in a cluster.
    fn provisioner(&self) -> Running {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        let user = UserInfo::authenticated(BINDER, groups);
        let deps = kedge_local_path::Deps {
            client: self.client_of(user),
            class_client: self.client.clone(),
            informers: Informers::new(self.client.clone(), self.shutdown.clone()),
            status: self.board.component("kedge-local-path"),
        };
        let config = kedge_local_path::Config { node_name: "node-1".to_owned(), root: self.root() };
        let token = self.shutdown.clone();
        Running(tokio::spawn(async move { kedge_local_path::run(config, deps, token).await.unwrap() }))
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// A claim of the class `local-path`, given to `node-1` as the scheduler does.
    async fn claim(&self, name: &str, spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {"name": name, "annotations": {"volume.kubernetes.io/selected-node": "node-1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                     "resources": {"requests": {"storage": "1Gi"}}},
        });
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.claims().create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap()
    }

    async fn bound(&self, name: &str) -> PersistentVolume {
        let volume = until("a bound claim", async || {
            let claim = self.claims().get(name).await.unwrap();
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase == Some("Bound") {
                Ok(claim.spec.unwrap().volume_name.unwrap())
            } else {
                Err(format!("{claim:?}"))
            }
        });
        self.volumes().get(&volume.await).await.unwrap()
    }

    async fn gone(&self, volume: &str, path: &Path) {
        until("the end of a volume", async || {
            let object = self.volumes().get_opt(volume).await.unwrap();
            let seen = format!("{object:?}, directory: {}", path.exists());
            if object.is_none() && !path.exists() { Ok(()) } else { Err(seen) }
        })
        .await;
    }

    async fn has_event(&self, reason: &str, text: &str) {
        until(&format!("an event {reason}: {text}"), async || {
            let events = Api::<Event>::all(self.client.clone()).list(&Default::default()).await.unwrap();
            let is_it = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|message| message.contains(text))
            };
            let seen: Vec<String> = events.items.iter().filter_map(|event| event.message.clone()).collect();
            if events.items.iter().any(is_it) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("no {what} within {DEADLINE:?}: {seen}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

fn path_of(volume: &PersistentVolume) -> PathBuf {
    PathBuf::from(&volume.spec.as_ref().unwrap().local.as_ref().unwrap().path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_a_directory_and_takes_it_along() {
    let world = World::new().await;
    let _provisioner = world.provisioner();
    let claim = world.claim("data", json!({})).await;
    let volume = world.bound("data").await;
    let name = format!("pvc-{}", claim.metadata.uid.as_ref().unwrap());
    assert_eq!(volume.metadata.name.as_ref(), Some(&name));
    assert_eq!(
        volume.metadata.annotations.as_ref().unwrap()["pv.kubernetes.io/provisioned-by"],
        "kedge.dev/local-path"
    );
    let path = path_of(&volume);
    assert_eq!(path, world.root().join(format!("{name}_default_data")));
    assert!(path.is_dir());
    world.has_event("Provisioning", "External provisioner is provisioning volume for claim \"default/data\"").await;
    world.has_event("ProvisioningSucceeded", &format!("Successfully provisioned volume {name}")).await;
    std::fs::write(path.join("file"), "data").unwrap();
    world.claims().delete("data", &DeleteParams::default()).await.unwrap();
    world.gone(&name, &path).await;
    assert!(world.root().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_retained_keeps_its_directory() {
    let world = World::new().await;
    let _provisioner = world.provisioner();
    world.claim("data", json!({})).await;
    let volume = world.bound("data").await;
    let (name, path) = (volume.metadata.name.clone().unwrap(), path_of(&volume));
    let retain = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    world.volumes().patch(&name, &PatchParams::default(), &Patch::Merge(retain)).await.unwrap();
    until("a volume without the provisioner's finalizer", async || {
        let finalizers = world.volumes().get(&name).await.unwrap().metadata.finalizers.unwrap_or_default();
        if finalizers.iter().any(|one| one.starts_with("external-provisioner")) {
            Err(finalizers.join(","))
        } else {
            Ok(())
        }
    })
    .await;
    world.claims().delete("data", &DeleteParams::default()).await.unwrap();
    until("a released volume", async || {
        let phase = world.volumes().get(&name).await.unwrap().status.unwrap().phase.unwrap();
        if phase == "Released" { Ok(()) } else { Err(phase) }
    })
    .await;
    world.volumes().delete(&name, &DeleteParams::default()).await.unwrap();
    until("the end of the object", async || {
        let object = world.volumes().get_opt(&name).await.unwrap();
        object.map_or(Ok(()), |object| Err(format!("{object:?}")))
    })
    .await;
    assert!(path.exists());
    // The next run does not take it for something half made either.
    drop(_provisioner);
    let _next = world.provisioner();
    world.claim("other", json!({})).await;
    world.bound("other").await;
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_is_finished_by_the_next() {
    let world = World::new().await;
    // Died after the directory and before the object, for a claim that is there and for one that is gone.
    let claim = world.claim("data", json!({})).await;
    let name = format!("pvc-{}", claim.metadata.uid.as_ref().unwrap());
    let notes = world.root().join(".provisioning");
    std::fs::create_dir_all(&notes).unwrap();
    for (volume, directory) in
        [(name.as_str(), format!("{name}_default_data")), ("pvc-gone", "pvc-gone_default_x".to_owned())]
    {
        std::fs::write(notes.join(volume), &directory).unwrap();
        std::fs::create_dir(world.root().join(directory)).unwrap();
    }
    let first = world.provisioner();
    let volume = world.bound("data").await;
    assert!(path_of(&volume).is_dir());
    until("the end of what was half made", async || {
        let left: Vec<_> = std::fs::read_dir(&notes).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let is_gone = !world.root().join("pvc-gone_default_x").exists();
        if left.is_empty() && is_gone { Ok(()) } else { Err(format!("{left:?} {is_gone}")) }
    })
    .await;
    // Died before it saw that the claim is gone, and between the directory's end and the object's.
    drop(first);
    std::fs::remove_dir_all(path_of(&volume)).unwrap();
    world.claims().delete("data", &DeleteParams::default()).await.unwrap();
    let _second = world.provisioner();
    world.gone(&name, &path_of(&volume)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_class_is_made_once_and_says_what_it_can() {
    let world = World::new().await;
    let first = world.provisioner();
    let classes = Api::<StorageClass>::all(world.client.clone());
    let class =
        until("a class", async || classes.get_opt("local-path").await.unwrap().ok_or_else(|| "no class".to_owned()))
            .await;
    assert_eq!(class.metadata.annotations.unwrap()["storageclass.kubernetes.io/is-default-class"], "true");
    assert_eq!(class.volume_binding_mode.as_deref(), Some("WaitForFirstConsumer"));
    world.claim("shared", json!({"accessModes": ["ReadWriteMany"]})).await;
    let text =
        "failed to provision volume with StorageClass \"local-path\": access mode ReadWriteMany is not supported";
    world.has_event("ProvisioningFailed", text).await;
    drop(first);
    classes.delete("local-path", &DeleteParams::default()).await.unwrap();
    // Nobody makes a class again that somebody deleted; one of another name serves as well, at once and on any node.
    let _second = world.provisioner();
    let other = json!({"metadata": {"name": "other"}, "provisioner": "kedge.dev/local-path",
                       "volumeBindingMode": "Immediate", "allowVolumeExpansion": true});
    classes.create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "other", "resources": {"requests": {"storage": "1Gi"}}}});
    world.claims().create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    let volume = world.bound("data").await;
    assert!(classes.get_opt("local-path").await.unwrap().is_none());

    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    world.claims().patch("data", &PatchParams::default(), &Patch::Merge(more)).await.unwrap();
    until("a larger claim", async || {
        let status = world.claims().get("data").await.unwrap().status.unwrap();
        let capacity = status.capacity.unwrap()["storage"].0.clone();
        if capacity == "2Gi" { Ok(()) } else { Err(capacity) }
    })
    .await;
    let volume = world.volumes().get(volume.metadata.name.as_deref().unwrap()).await.unwrap();
    assert_eq!(volume.spec.unwrap().capacity.unwrap()["storage"].0, "2Gi");
    world.has_event("VolumeResizeSuccessful", "Resize volume succeeded").await;
}
