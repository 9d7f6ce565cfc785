//! What an informer's objects are found by besides their keys: pods by their node, volumes and claims by each other and by
//! their class.
//!
//! Invariant: an object of the cache is in the group that it names, and in no other.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::held::Held;

/// The group that an object names.
type GroupOf<K> = for<'a> fn(&'a K) -> Option<Cow<'a, str>>;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct Groups<K> {
    group_of: Option<GroupOf<K>>,
    members: HashMap<Arc<str>, Vec<Arc<Held<K>>>>,
}

impl<K: 'static> Groups<K> {
    /// The groups that objects of this kind have, none yet.
    pub(super) fn of_kind() -> Self {
        let (pods, volumes, claims): (GroupOf<Pod>, GroupOf<PersistentVolume>, GroupOf<PersistentVolumeClaim>) =
            (node_of, claim_or_class, volume_or_class);
        let all: [&dyn Any; 3] = [&pods, &volumes, &claims];
        let group_of = all.into_iter().find_map(|one| one.downcast_ref().copied());
        Self { group_of, members: HashMap::new() }
    }
}

impl<K> Groups<K> {
    /// The name of an object's group, one copy for all members.
    pub(super) fn name_for(&self, object: &K) -> Option<Arc<str>> {
        let name = self.group_of?(object)?;
        let known = self.members.get_key_value(&*name).map(|(known, _)| known.clone());
        Some(known.unwrap_or_else(|| name.into()))
    }

    /// An object took the place of another, came, or went.
    pub(super) fn replace(&mut self, old: Option<&Arc<Held<K>>>, new: Option<&Arc<Held<K>>>) {
        if self.group_of.is_none() {
            return;
        }
        if let Some(old) = old
            && let Some(name) = &old.group
            && let Some(members) = self.members.get_mut(name)
        {
            members.retain(|member| !Arc::ptr_eq(member, old));
            if members.is_empty() && new.is_none_or(|new| new.group != old.group) {
                self.members.remove(name);
            }
        }
        if let Some(new) = new
            && let Some(name) = &new.group
        {
            self.members.entry(name.clone()).or_default().push(new.clone());
        }
    }

    /// The members of a group.
    pub(super) fn get(&self, name: &str) -> &[Arc<Held<K>>] {
        self.members.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

fn node_of(pod: &Pod) -> Option<Cow<'_, str>> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty()).map(Cow::Borrowed)
}

/// The group of volumes that are reserved for a claim.
pub(super) fn of_claim(namespace: &str, name: &str) -> String {
    format!("claim {namespace}/{name}")
}

/// The group of what is of a class and still open.
pub(super) fn of_class(class: &str) -> String {
    format!("class {class}")
}

/// The group of claims that name a volume.
pub(super) fn of_volume(name: &str) -> String {
    format!("volume {name}")
}

fn claim_or_class(volume: &PersistentVolume) -> Option<Cow<'_, str>> {
    let spec = volume.spec.as_ref();
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let group = match spec.and_then(|spec| spec.claim_ref.as_ref()) {
        Some(claim) => of_claim(&text(&claim.namespace), &text(&claim.name)),
        None => of_class(class_of(volume.metadata.annotations.as_ref(), spec.map(|spec| &spec.storage_class_name))),
    };
    Some(group.into())
}

fn volume_or_class(claim: &PersistentVolumeClaim) -> Option<Cow<'_, str>> {
    let spec = claim.spec.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    let group = match volume {
        Some(volume) => of_volume(volume),
        None => of_class(class_of(claim.metadata.annotations.as_ref(), spec.map(|spec| &spec.storage_class_name))),
    };
    Some(group.into())
}

fn class_of<'a>(annotations: Option<&'a BTreeMap<String, String>>, named: Option<&'a Option<String>>) -> &'a str {
    let annotated = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    annotated.or(named.and_then(Option::as_ref)).map_or("", String::as_str)
}
