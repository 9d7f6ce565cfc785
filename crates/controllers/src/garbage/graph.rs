//! Who owns whom: the graph of owner references.
//!
//! Pure. Invariants: an edge from a dependent to an owner is on both nodes; only objects that own something, are owned,
//! or wait for their dependents have a node, so that the thousands of objects which have neither cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::discovery::ApiKind;

/// The finalizer of objects that go after their dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of objects that leave their dependents behind.
pub(crate) const ORPHAN: &str = "orphan";

/// An object's uid.
pub(crate) type Uid = Arc<str>;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// As an owner reference names it.
    pub(crate) api_version: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// An owner as a dependent names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    pub(crate) api_version: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) blocks: bool,
}

/// An object in the graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) owners: Vec<Owner>,
    pub(crate) dependents: HashSet<Uid>,
    /// Known from a dependent's reference only.
    pub(crate) is_virtual: bool,
    pub(crate) is_being_deleted: bool,
    pub(crate) waits_for_dependents: bool,
    orphans_dependents: bool,
}

/// What is to be looked at because of a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Whether the object has to go.
    Delete(Uid),
    /// The dependents of the object have to be let go of.
    Orphan(Uid),
    /// The dependent names an owner in another namespace.
    Report(Uid),
}

/// The graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<Uid, Node>,
    /// One copy of each kind, version and namespace, however many objects share it.
    names: HashSet<Arc<str>>,
}

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// How many objects have a node.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The uids of observed objects of a kind, for finding out which of them vanished.
    pub(crate) fn observed(&self, api_version: &str, kind: &str) -> Vec<Uid> {
        let of_kind =
            |node: &Node| !node.is_virtual && &*node.place.kind == kind && &*node.place.api_version == api_version;
        self.nodes.iter().filter(|(_, node)| of_kind(node)).map(|(uid, _)| uid.clone()).collect()
    }

    /// An object is there, in this state.
    pub(crate) fn observe(&mut self, kind: &ApiKind, meta: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = meta.uid.as_deref() else { return Vec::new() };
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        let is_being_deleted = meta.deletion_timestamp.is_some();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|present| present == finalizer);
        let waits = is_being_deleted && has(FOREGROUND);
        let orphans = is_being_deleted && has(ORPHAN);
        if owners.is_empty() && !waits && !orphans && !self.nodes.contains_key(uid) {
            return Vec::new();
        }
        let uid: Uid = uid.into();
        let place = self.place(kind, meta);
        let owners: Vec<Owner> = owners.iter().map(|owner| self.owner(owner)).collect();
        let mut work = Vec::new();
        self.put(&uid, place, &mut work);
        self.set_owners(&uid, owners, &mut work);
        let node = self.nodes.get_mut(&uid).expect("it was just put in");
        node.is_being_deleted = is_being_deleted;
        if waits && !node.waits_for_dependents {
            node.waits_for_dependents = true;
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
            work.push(Work::Delete(uid.clone()));
        }
        node.waits_for_dependents = waits;
        node.orphans_dependents = orphans;
        if orphans {
            work.push(Work::Orphan(uid.clone()));
        }
        self.drop_if_idle(&uid);
        work
    }

    /// An object is gone.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = node.dependents.iter().cloned().map(Work::Delete).collect();
        for owner in &node.owners {
            let Some(owner_node) = self.nodes.get_mut(&owner.uid) else { continue };
            owner_node.dependents.remove(uid);
            if owner_node.waits_for_dependents {
                work.push(Work::Delete(owner.uid.clone()));
            }
            let owner = owner.uid.clone();
            self.drop_if_idle(&owner);
        }
        work
    }

    /// A virtual object turned out to exist.
    pub(crate) fn confirm(&mut self, uid: &str) {
        if let Some(node) = self.nodes.get_mut(uid) {
            node.is_virtual = false;
        }
    }

    fn put(&mut self, uid: &Uid, place: Place, work: &mut Vec<Work>) {
        let Some(node) = self.nodes.get_mut(uid) else {
            self.nodes.insert(uid.clone(), Node::new(place, false));
            return;
        };
        if node.is_virtual && node.place != place {
            // Dependents that named it wrongly have to be looked at: what they name does not exist.
            let dependents: Vec<Uid> = node.dependents.iter().cloned().collect();
            node.place = place.clone();
            for dependent in dependents {
                let misnames = self.nodes.get(&dependent).is_some_and(|dependent_node| {
                    dependent_node.owners.iter().any(|owner| owner.uid == *uid && !matches(owner, &place))
                        || !place.namespace.is_empty() && dependent_node.place.namespace != place.namespace
                });
                if misnames {
                    work.push(Work::Delete(dependent.clone()));
                    work.push(Work::Report(dependent));
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(uid) {
            node.is_virtual = false;
            node.place = place;
        }
    }

    fn set_owners(&mut self, uid: &Uid, owners: Vec<Owner>, work: &mut Vec<Work>) {
        let node = self.nodes.get_mut(uid).expect("the caller put it in");
        let before = std::mem::replace(&mut node.owners, owners.clone());
        let namespace = node.place.namespace.clone();
        let blocked_before: HashSet<Uid> =
            before.iter().filter(|owner| owner.blocks).map(|owner| owner.uid.clone()).collect();
        for gone in before.iter().filter(|owner| !owners.iter().any(|kept| kept.uid == owner.uid)) {
            if let Some(owner) = self.nodes.get_mut(&gone.uid) {
                owner.dependents.remove(uid);
                if owner.waits_for_dependents {
                    work.push(Work::Delete(gone.uid.clone()));
                }
            }
            self.drop_if_idle(&gone.uid);
        }
        for owner in owners {
            if let Some(owner_node) = self.nodes.get_mut(&owner.uid) {
                let is_new = owner_node.dependents.insert(uid.clone());
                let unblocks = blocked_before.contains(&owner.uid) && !owner.blocks;
                if unblocks && owner_node.waits_for_dependents {
                    work.push(Work::Delete(owner.uid.clone()));
                }
                let elsewhere = !owner_node.place.namespace.is_empty() && owner_node.place.namespace != namespace;
                if is_new && !owner_node.is_virtual && (elsewhere || !matches(&owner, &owner_node.place)) {
                    work.push(Work::Delete(uid.clone()));
                    work.push(Work::Report(uid.clone()));
                }
                continue;
            }
            let place = Place {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                namespace: namespace.clone(),
                name: owner.name.clone(),
            };
            let mut node = Node::new(place, true);
            node.dependents.insert(uid.clone());
            self.nodes.insert(owner.uid.clone(), node);
            work.push(Work::Delete(owner.uid));
        }
    }

    /// Forgets a node that nothing depends on and that depends on nothing.
    fn drop_if_idle(&mut self, uid: &str) {
        let is_idle = |node: &Node| {
            let has_finalizer = node.waits_for_dependents || node.orphans_dependents;
            node.owners.is_empty() && node.dependents.is_empty() && !has_finalizer
        };
        if self.nodes.get(uid).is_some_and(is_idle) {
            self.nodes.remove(uid);
        }
    }

    fn place(&mut self, kind: &ApiKind, meta: &ObjectMeta) -> Place {
        Place {
            api_version: self.name(&kind.resource.api_version),
            kind: self.name(&kind.resource.kind),
            namespace: self.name(meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.as_deref().unwrap_or_default().into(),
        }
    }

    fn owner(&mut self, reference: &OwnerReference) -> Owner {
        let known = self.nodes.get_key_value(reference.uid.as_str()).map(|(uid, _)| uid.clone());
        Owner {
            uid: known.unwrap_or_else(|| reference.uid.as_str().into()),
            api_version: self.name(&reference.api_version),
            kind: self.name(&reference.kind),
            name: reference.name.as_str().into(),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        let name: Arc<str> = text.into();
        self.names.insert(name.clone());
        name
    }
}

impl Node {
    fn new(place: Place, is_virtual: bool) -> Self {
        Self {
            place,
            owners: Vec::new(),
            dependents: HashSet::new(),
            is_virtual,
            is_being_deleted: false,
            waits_for_dependents: false,
            orphans_dependents: false,
        }
    }

    /// Whether the node keeps an owner from going before it.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|reference| reference.blocks && &*reference.uid == owner)
    }
}

/// Whether a reference names the object at a place. Versions of a group are all the same object.
fn matches(owner: &Owner, place: &Place) -> bool {
    fn group(api_version: &str) -> &str {
        api_version.split_once('/').map_or("", |(group, _)| group)
    }
    owner.kind == place.kind && owner.name == place.name && group(&owner.api_version) == group(&place.api_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn kind(name: &str) -> ApiKind {
        crate::discovery::fixtures::kind("v1", name)
    }

    fn object(name: &str, owners: &[&str]) -> ObjectMeta {
        let reference = |name: &&str| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Owner".to_owned(),
            name: (*name).to_owned(),
            uid: (*name).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(name.to_owned()),
            owner_references: Some(owners.iter().map(reference).collect()),
            ..ObjectMeta::default()
        }
    }

    fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
        meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        meta.finalizers = Some(vec![finalizer.to_owned()]);
        meta
    }

    fn show(work: &[Work]) -> Vec<String> {
        let mut all: Vec<String> = work
            .iter()
            .map(|work| match work {
                Work::Delete(uid) => format!("delete {uid}"),
                Work::Orphan(uid) => format!("orphan {uid}"),
                Work::Report(uid) => format!("report {uid}"),
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn loners_have_no_node() {
        let mut graph = Graph::default();
        assert!(graph.observe(&kind("ConfigMap"), &object("a", &[])).is_empty());
        assert_eq!(graph.len(), 0);
        assert!(graph.remove("a").is_empty());
    }

    #[test]
    fn an_unknown_owner_is_verified_and_its_loss_reaches_its_dependents() {
        let mut graph = Graph::default();
        let work = graph.observe(&kind("Pod"), &object("pod", &["owner"]));
        assert_eq!(show(&work), ["delete owner"]);
        assert!(graph.get("owner").unwrap().is_virtual);
        graph.confirm("owner");
        assert!(!graph.get("owner").unwrap().is_virtual);
        assert_eq!(show(&graph.observe(&kind("Owner"), &object("owner", &[]))), Vec::<String>::new());
        assert_eq!(show(&graph.remove("owner")), ["delete pod"]);
        assert!(graph.remove("pod").is_empty());
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn foreground_deletion_waits_for_the_dependents() {
        let mut graph = Graph::default();
        graph.observe(&kind("Owner"), &object("owner", &[]));
        graph.observe(&kind("Pod"), &object("pod", &["owner"]));
        let work = graph.observe(&kind("Owner"), &deleting(object("owner", &[]), FOREGROUND));
        assert_eq!(show(&work), ["delete owner", "delete pod"]);
        let again = graph.observe(&kind("Owner"), &deleting(object("owner", &[]), FOREGROUND));
        assert_eq!(show(&again), Vec::<String>::new());
        assert!(graph.get("pod").unwrap().blocks("owner"));
        assert_eq!(show(&graph.remove("pod")), ["delete owner"]);
    }

    #[test]
    fn regress_orphaning_without_known_dependents_is_not_forgotten() {
        let mut graph = Graph::default();
        graph.observe(&kind("Pod"), &object("pod", &["owner"]));
        let work = graph.observe(&kind("Owner"), &deleting(object("owner", &[]), ORPHAN));
        assert_eq!(show(&work), ["orphan owner"]);
        graph.observe(&kind("Pod"), &object("pod", &[]));
        assert!(graph.get("owner").is_some(), "its finalizer is still to be removed");
        graph.observe(&kind("Owner"), &object("owner", &[]));
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn an_owner_in_another_namespace_is_reported() {
        let mut graph = Graph::default();
        graph.observe(&kind("Owner"), &deleting(object("owner", &[]), FOREGROUND));
        let mut elsewhere = object("pod", &["owner"]);
        elsewhere.namespace = Some("other".to_owned());
        let work = graph.observe(&kind("Pod"), &elsewhere);
        assert_eq!(show(&work), ["delete pod", "report pod"]);
        // In the other order: the owner is found to be elsewhere after its dependent.
        let mut graph = Graph::default();
        graph.observe(&kind("Pod"), &elsewhere);
        let work = graph.observe(&kind("Owner"), &object("owner", &[]));
        assert_eq!(show(&work), ["delete pod", "report pod"]);
        // An owner without a namespace may own anything.
        let mut graph = Graph::default();
        graph.observe(&kind("Pod"), &object("pod", &["owner"]));
        let mut cluster_scoped = object("owner", &[]);
        cluster_scoped.namespace = None;
        assert_eq!(show(&graph.observe(&kind("Owner"), &cluster_scoped)), Vec::<String>::new());
    }
}
