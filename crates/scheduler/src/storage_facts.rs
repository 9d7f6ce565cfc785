//! What plugins may know about storage, gathered from the caches for one pod.
//!
//! Decides nothing. Invariant: what is given away to other pods already counts as taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSINodeDriver, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use kedge_client::{Change, Informer, Informers, Subscription, object_key};
use kedge_meta::ObjectKey;

use crate::bind_volumes::Reserved;
use crate::cache::Cache;
use crate::event::{EventKind, ObjectChange};
use crate::framework::{Surroundings, VolumeLimit};
use crate::plugins::claim_names;
use crate::pod_info::PodInfo;

/// The caches of everything about storage.
pub(crate) struct StorageCaches {
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    drivers: Informer<CSIDriver>,
    nodes: Informer<CSINode>,
    capacities: Informer<CSIStorageCapacity>,
    attachments: Informer<VolumeAttachment>,
}

impl StorageCaches {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self {
            claims: informers.all(),
            volumes: informers.all(),
            classes: informers.all(),
            drivers: informers.all(),
            nodes: informers.all(),
            capacities: informers.all(),
            attachments: informers.all(),
        }
    }

    pub(crate) async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.drivers.synced().await;
        self.nodes.synced().await;
        self.capacities.synced().await;
        self.attachments.synced().await;
    }

    /// The changes that may let a pod run that could not before.
    pub(crate) fn changes(&self) -> StorageChanges {
        StorageChanges {
            claims: self.claims.subscribe(),
            volumes: self.volumes.subscribe(),
            classes: self.classes.subscribe(),
            nodes: self.nodes.subscribe(),
            capacities: self.capacities.subscribe(),
            attachments: self.attachments.subscribe(),
        }
    }

    /// Tells the plugins about storage, as far as the pod needs it.
    pub(crate) fn add_to(&self, surroundings: &mut Surroundings, pod: &PodInfo, cache: &Cache, reserved: &Reserved) {
        let names = claim_names(pod);
        if names.is_empty() {
            return;
        }
        let claims =
            names.iter().filter_map(|(name, _)| self.claims.get(&ObjectKey::new(pod.namespace(), name.as_str())));
        surroundings.claims = claims.map(|claim| reserved.claim(claim)).collect();
        surroundings.volumes = self.volumes_for(&surroundings.claims, reserved);
        surroundings.storage_classes = self.classes.list();
        surroundings.drivers = self.drivers.list();
        surroundings.capacities = self.capacities.list();
        surroundings.volume_limits = self.limits(cache);
    }

    /// The volumes that claims may be about: those that they name, those that are reserved for them, and for claims that
    /// name none the open ones of their class; each once.
    fn volumes_for(&self, claims: &[Arc<PersistentVolumeClaim>], reserved: &Reserved) -> Vec<Arc<PersistentVolume>> {
        let mut found: BTreeMap<String, Arc<PersistentVolume>> = BTreeMap::new();
        for claim in claims {
            let spec = claim.spec.as_ref();
            let named = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
            let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
            let volumes = match named {
                Some(name) => self.volumes.get(&ObjectKey::cluster(name)).into_iter().collect(),
                None => {
                    let mut volumes = self.volumes.for_claim(&object_key(&**claim));
                    volumes.extend(self.volumes.open_of_class(class));
                    volumes
                }
            };
            for volume in volumes {
                found.insert(volume.metadata.name.clone().unwrap_or_default(), volume);
            }
        }
        found.into_values().map(|volume| reserved.volume(volume)).collect()
    }

    /// What nodes with limits hold: the volumes of their pods, and what is attached to them.
    fn limits(&self, cache: &Cache) -> BTreeMap<String, BTreeMap<String, VolumeLimit>> {
        let mut limits = BTreeMap::new();
        for node in self.nodes.list() {
            let name = node.metadata.name.clone().unwrap_or_default();
            let count = |driver: &CSINodeDriver| {
                let most = driver.allocatable.as_ref()?.count?;
                let most = usize::try_from(most).unwrap_or_default();
                Some((driver.name.clone(), VolumeLimit { most, ..VolumeLimit::default() }))
            };
            let of_node: BTreeMap<String, VolumeLimit> = node.spec.drivers.iter().filter_map(count).collect();
            if !of_node.is_empty() {
                limits.insert(name, of_node);
            }
        }
        if limits.is_empty() {
            return limits;
        }
        for node in cache.nodes() {
            let Some(of_node) = limits.get_mut(&node.name) else { continue };
            for pod in node.pods.iter() {
                for (claim, _) in claim_names(pod) {
                    self.count_claim(&ObjectKey::new(pod.namespace(), claim.as_str()), of_node);
                }
            }
        }
        for attachment in self.attachments.list() {
            let Some(of_node) = limits.get_mut(&attachment.spec.node_name) else { continue };
            let volume = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
            self.count_volume(volume, of_node);
        }
        limits
    }

    fn count_claim(&self, key: &ObjectKey, limits: &mut BTreeMap<String, VolumeLimit>) {
        let claim = self.claims.get(key);
        let Some(spec) = claim.as_ref().and_then(|claim| claim.spec.as_ref()) else { return };
        if let Some(volume) = spec.volume_name.as_ref().filter(|name| !name.is_empty()) {
            return self.count_volume(volume, limits);
        }
        // A volume that is being made for a pod that has been placed.
        let class = spec.storage_class_name.as_ref().and_then(|name| self.classes.get(&ObjectKey::cluster(name)));
        if let Some(limit) = class.and_then(|class| limits.get_mut(&class.provisioner)) {
            limit.handles.insert(format!("{}/{}", key.namespace, key.name));
        }
    }

    fn count_volume(&self, name: &str, limits: &mut BTreeMap<String, VolumeLimit>) {
        let volume = self.volumes.get(&ObjectKey::cluster(name));
        let csi = volume.as_ref().and_then(|volume| volume.spec.as_ref()?.csi.as_ref());
        if let Some((csi, limit)) = csi.and_then(|csi| Some((csi, limits.get_mut(&csi.driver)?))) {
            limit.handles.insert(csi.volume_handle.clone());
        }
    }
}

/// Changes of storage objects.
pub(crate) struct StorageChanges {
    claims: Subscription<PersistentVolumeClaim>,
    volumes: Subscription<PersistentVolume>,
    classes: Subscription<StorageClass>,
    nodes: Subscription<CSINode>,
    capacities: Subscription<CSIStorageCapacity>,
    attachments: Subscription<VolumeAttachment>,
}

impl StorageChanges {
    /// Waits for the next change. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ObjectChange {
        tokio::select! {
            change = self.claims.next() => claim(&change),
            change = self.volumes.next() => volume(&change),
            change = self.classes.next() => class(&change),
            change = self.nodes.next() => csi_node(&change),
            change = self.capacities.next() => capacity(&change),
            change = self.attachments.next() => attachment(&change),
        }
    }

    /// The next change, if one is pending.
    pub(crate) fn try_next(&mut self) -> Option<ObjectChange> {
        let first = self.claims.try_next().as_ref().map(claim);
        first
            .or_else(|| self.volumes.try_next().as_ref().map(volume))
            .or_else(|| self.classes.try_next().as_ref().map(class))
            .or_else(|| self.nodes.try_next().as_ref().map(csi_node))
            .or_else(|| self.capacities.try_next().as_ref().map(capacity))
            .or_else(|| self.attachments.try_next().as_ref().map(attachment))
    }
}

fn claim(change: &Change<PersistentVolumeClaim>) -> ObjectChange {
    ObjectChange::new(EventKind::Claim, "PersistentVolumeClaim", change)
}

fn volume(change: &Change<PersistentVolume>) -> ObjectChange {
    ObjectChange::new(EventKind::Volume, "PersistentVolume", change)
}

fn class(change: &Change<StorageClass>) -> ObjectChange {
    ObjectChange::new(EventKind::StorageClass, "StorageClass", change)
}

fn csi_node(change: &Change<CSINode>) -> ObjectChange {
    ObjectChange::new(EventKind::CsiNode, "CSINode", change)
}

fn capacity(change: &Change<CSIStorageCapacity>) -> ObjectChange {
    ObjectChange::new(EventKind::StorageCapacity, "CSIStorageCapacity", change)
}

fn attachment(change: &Change<VolumeAttachment>) -> ObjectChange {
    ObjectChange::new(EventKind::Attachment, "VolumeAttachment", change)
}
