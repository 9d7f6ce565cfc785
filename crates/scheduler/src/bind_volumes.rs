//! Carrying out what was found for a pod's claims: volumes are reserved, provisioners are told the node, and the pod waits
//! until the volume controller has bound every claim.
//!
//! Decides nothing about nodes. Invariants: nothing is written that somebody else wrote meanwhile; what is only planned is
//! seen by the decisions about other pods ([`Reserved`]) until the API shows it or it has failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use kedge_client::{Client, Informer, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::plugins::{PodVolumes, SELECTED_NODE, is_fully_bound};
use crate::pod_info::PodInfo;

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// Volumes and claims that are given away but do not show it yet.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    volumes: HashMap<String, ObjectReference>,
    nodes: HashMap<ObjectKey, String>,
}

impl Reserved {
    pub(crate) fn add(&mut self, volumes: &PodVolumes, node: &str) {
        for (claim, volume) in &volumes.bindings {
            self.volumes.insert(volume.metadata.name.clone().unwrap_or_default(), object_reference(&**claim));
        }
        for claim in &volumes.provisions {
            self.nodes.insert(object_key(&**claim), node.to_owned());
        }
    }

    pub(crate) fn remove(&mut self, volumes: &PodVolumes) {
        for (_, volume) in &volumes.bindings {
            self.volumes.remove(volume.metadata.name.as_deref().unwrap_or_default());
        }
        for claim in &volumes.provisions {
            self.nodes.remove(&object_key(&**claim));
        }
    }

    /// A volume as other pods must see it.
    pub(crate) fn volume(&self, volume: Arc<PersistentVolume>) -> Arc<PersistentVolume> {
        let reserved = self.volumes.get(volume.metadata.name.as_deref().unwrap_or_default());
        let is_open = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        match reserved.filter(|_| is_open) {
            None => volume,
            Some(reference) => Arc::new(reserve(&volume, reference.clone())),
        }
    }

    /// A claim as other pods must see it.
    pub(crate) fn claim(&self, claim: Arc<PersistentVolumeClaim>) -> Arc<PersistentVolumeClaim> {
        match self.nodes.get(&object_key(&*claim)) {
            None => claim,
            Some(node) => Arc::new(with_node(&claim, node)),
        }
    }
}

fn reserve(volume: &PersistentVolume, reference: ObjectReference) -> PersistentVolume {
    let mut volume = volume.clone();
    volume.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    volume.spec.get_or_insert_default().claim_ref = Some(reference);
    volume
}

fn with_node(claim: &PersistentVolumeClaim, node: &str) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    claim.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.to_owned(), node.to_owned());
    claim
}

fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

/// Binds the claims of pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct VolumeBinder {
    pub(crate) client: Client,
    pub(crate) pods: Informer<Pod>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    /// Upstream's `bindTimeoutSeconds`.
    pub(crate) patience: Duration,
}

impl VolumeBinder {
    /// Binds a pod's claims for a node; returns when all of them are, with upstream's words when that can't be.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str, volumes: &PodVolumes) -> Result<(), String> {
        let work = async {
            self.write(node, volumes).await.map_err(|error| match error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            })?;
            self.wait(pod, node, volumes).await
        };
        let result = tokio::time::timeout(self.patience, work).await;
        let result = result.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        result.map_err(|why| format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}"))
    }

    async fn write(&self, node: &str, volumes: &PodVolumes) -> Result<(), kube::Error> {
        for (claim, volume) in &volumes.bindings {
            let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            if reference.is_some_and(|reference| reference.uid == claim.metadata.uid) {
                continue;
            }
            let changed = match reference {
                None => reserve(volume, object_reference(&**claim)),
                // Reserved by hand: only the uid is missing.
                Some(_) => {
                    let mut changed = PersistentVolume::clone(volume);
                    changed.spec.get_or_insert_default().claim_ref = Some(object_reference(&**claim));
                    changed
                }
            };
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let api = Api::<PersistentVolume>::all(self.client.clone());
            api.replace(name, &PostParams::default(), &changed).await?;
        }
        for claim in volumes.provisions.iter().filter(|claim| selected_node(claim) != Some(node)) {
            let key = object_key(&**claim);
            let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &key.namespace);
            api.replace(&key.name, &PostParams::default(), &with_node(claim, node)).await?;
        }
        Ok(())
    }

    async fn wait(&self, pod: &PodInfo, node: &str, volumes: &PodVolumes) -> Result<(), String> {
        let (mut claims, mut pods) = (self.claims.subscribe(), self.pods.subscribe());
        let mut has_written = false;
        loop {
            if self.pods.get(&pod.key).is_none_or(|now| now.metadata.uid != pod.pod().metadata.uid) {
                return Err(format!("pod does not exist any more: pod \"{}\" not found", pod.key.name));
            }
            if self.are_bound(node, volumes, &mut has_written)? {
                return Ok(());
            }
            tokio::select! {
                _ = claims.next() => {}
                _ = pods.next() => {}
            }
        }
    }

    /// Whether all claims are bound. `has_written` remembers that the cache has shown the chosen node.
    fn are_bound(&self, node: &str, volumes: &PodVolumes, has_written: &mut bool) -> Result<bool, String> {
        let wanted = volumes.bindings.iter().map(|(claim, _)| claim).chain(&volumes.provisions);
        let mut all = true;
        for claim in wanted {
            let key = object_key(&**claim);
            let Some(now) = self.claims.get(&key).filter(|now| now.metadata.uid == claim.metadata.uid) else {
                return Err(format!("error getting PVC {}/{}: not found", key.namespace, key.name));
            };
            all &= is_fully_bound(&now);
        }
        let shown = volumes.provisions.iter().filter_map(|claim| self.claims.get(&object_key(&**claim)));
        let nodes: Vec<Option<String>> = shown.map(|claim| selected_node(&claim).map(str::to_owned)).collect();
        let is_shown = nodes.iter().all(|selected| selected.as_deref() == Some(node));
        *has_written |= is_shown;
        if *has_written && !is_shown && !all {
            return Err("selectedNode annotation was reset or changed by the provisioner".to_owned());
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_given_away_shows_until_it_is_taken_back() {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "d", "uid": "1"}})).unwrap();
        let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": {}})).unwrap();
        let (claim, volume) = (Arc::new(claim), Arc::new(volume));
        let volumes = PodVolumes { bindings: vec![(claim.clone(), volume.clone())], provisions: vec![claim.clone()] };
        let mut reserved = Reserved::default();
        reserved.add(&volumes, "n");
        let shown = reserved.volume(volume.clone());
        assert_eq!(shown.spec.as_ref().unwrap().claim_ref.as_ref().unwrap().uid.as_deref(), Some("1"));
        assert_eq!(selected_node(&reserved.claim(claim.clone())), Some("n"));
        reserved.remove(&volumes);
        assert_eq!(reserved.volume(volume.clone()), volume);
        assert_eq!(reserved.claim(claim.clone()), claim);
    }
}
