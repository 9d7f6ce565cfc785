//! What the DynamicResources plugin may know, gathered from the caches for one pod.
//!
//! Decides nothing. Invariant: what was promised to other pods counts as taken until the caches show it.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kedge_allocator::{Selectors, Taken};
use kedge_client::{Informer, Informers, Subscription};
use kedge_meta::ObjectKey;

use crate::bind_claims::Promised;
use crate::event::{DEVICE_CLASS, EventKind, ObjectChange};
use crate::framework::Surroundings;
use crate::plugins::{ClaimName, DeviceFacts, Extended, allocation, claim_entries, claim_name, extended_names};
use crate::pod_info::PodInfo;

const CLAIM: &str = "ResourceClaim";
const SLICE: &str = "ResourceSlice";

/// The caches of everything about devices.
pub(crate) struct DeviceCaches {
    pub(crate) claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    classes: Informer<DeviceClass>,
    selectors: Arc<Selectors>,
}

impl DeviceCaches {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { claims: informers.all(), slices: informers.all(), classes: informers.all(), selectors: Arc::default() }
    }

    pub(crate) async fn synced(&self) {
        self.claims.synced().await;
        self.slices.synced().await;
        self.classes.synced().await;
    }

    /// The changes that may let a pod run that could not before.
    pub(crate) fn changes(&self) -> DeviceChanges {
        DeviceChanges {
            claims: self.claims.subscribe(),
            slices: self.slices.subscribe(),
            classes: self.classes.subscribe(),
        }
    }

    /// Tells the plugin about devices, where the pod has claims.
    pub(crate) fn add_to(&self, surroundings: &mut Surroundings, pod: &PodInfo, promised: &mut Promised) {
        let entries = claim_entries(pod);
        let asks_for_extended = extended_names(pod).next().is_some();
        if entries.is_empty() && !asks_for_extended {
            return;
        }
        let classes = self.classes.list();
        let extended = asks_for_extended
            .then(|| Extended::of(pod, &classes, &self.claims.in_namespace(pod.namespace())))
            .flatten();
        if entries.is_empty() && extended.is_none() {
            return;
        }
        promised.forget_shown(&self.claims);
        let mut facts = DeviceFacts {
            slices: self.slices.list(),
            classes,
            selectors: self.selectors.clone(),
            extended,
            ..DeviceFacts::default()
        };
        for entry in entries {
            let ClaimName::Is(name, _) = claim_name(pod, entry) else { continue };
            let claim = self.claims.get(&ObjectKey::new(pod.namespace(), &name));
            facts.claims.extend(claim.map(|claim| promised.show(claim)));
        }
        facts.taken = self.taken(promised);
        surroundings.devices = Some(facts);
    }

    fn taken(&self, promised: &Promised) -> Taken {
        let mut taken = Taken::default();
        for claim in self.claims.list() {
            if let Some(allocation) = allocation(&claim).filter(|_| !promised.knows(&claim)) {
                taken.add(allocation);
            }
        }
        promised.allocations().for_each(|allocation| taken.add(allocation));
        taken
    }
}

/// Changes of claims, slices and classes.
pub(crate) struct DeviceChanges {
    claims: Subscription<ResourceClaim>,
    slices: Subscription<ResourceSlice>,
    classes: Subscription<DeviceClass>,
}

impl DeviceChanges {
    /// Waits for the next change. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ObjectChange {
        tokio::select! {
            change = self.claims.next() => ObjectChange::new(EventKind::Devices, CLAIM, &change),
            change = self.slices.next() => ObjectChange::new(EventKind::Devices, SLICE, &change),
            change = self.classes.next() => ObjectChange::new(EventKind::Devices, DEVICE_CLASS, &change),
        }
    }

    /// The next change, if one is pending.
    pub(crate) fn try_next(&mut self) -> Option<ObjectChange> {
        let claim = self.claims.try_next().map(|change| ObjectChange::new(EventKind::Devices, CLAIM, &change));
        claim
            .or_else(|| self.slices.try_next().map(|change| ObjectChange::new(EventKind::Devices, SLICE, &change)))
            .or_else(|| {
                self.classes.try_next().map(|change| ObjectChange::new(EventKind::Devices, DEVICE_CLASS, &change))
            })
    }
}
