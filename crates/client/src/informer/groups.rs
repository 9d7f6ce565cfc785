//! What an informer's objects are found by besides their keys: pods by their node.
//!
//! Invariant: an object of the cache is in the group that it names, and in no other.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::held::Held;

/// The group that an object names.
type GroupOf<K> = for<'a> fn(&'a K) -> Option<&'a str>;

pub(super) struct Groups<K> {
    group_of: Option<GroupOf<K>>,
    members: HashMap<Arc<str>, Vec<Arc<Held<K>>>>,
}

impl<K: 'static> Groups<K> {
    /// The groups that objects of this kind have, none yet.
    pub(super) fn of_kind() -> Self {
        let by_node: GroupOf<Pod> = node_of;
        let by_node: &dyn Any = &by_node;
        Self { group_of: by_node.downcast_ref().copied(), members: HashMap::new() }
    }
}

impl<K> Groups<K> {
    /// The name of an object's group, one copy for all members.
    pub(super) fn name_for(&self, object: &K) -> Option<Arc<str>> {
        let name = self.group_of?(object)?;
        let known = self.members.get_key_value(name).map(|(known, _)| known.clone());
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

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}
