//! Between changes of objects and the kernel: remembers what is dirty, plans it, hands the plans over.
//!
//! Invariant: what was noted is planned before the next apply; a change costs the policies that look at what changed,
//! not all of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Pod as CorePod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kedge_client::{Change, object_key};
use kedge_meta::ObjectKey;
use kedge_netfilter::{Fragment, Nft, NftError, TableKeeper, Verified};

use crate::config::Config;
use crate::gate::{Admission, GateKeeper};
use crate::names::{pod_owner, policy_owner};
use crate::object::{Pod, Policy};
use crate::plan::{plan_pod, plan_policy};
use crate::skeleton::plan_skeleton;
use crate::world::{World, looks_at_namespace};

struct FamilyTable {
    ipv6: bool,
    keeper: TableKeeper,
}

pub(crate) struct Worker {
    node_name: String,
    world: World,
    tables: Vec<FamilyTable>,
    dirty_policies: BTreeSet<ObjectKey>,
    dirty_pods: BTreeSet<ObjectKey>,
}

impl Worker {
    pub(crate) fn new(config: &Config) -> Self {
        let families = [(config.ipv4, false), (config.ipv6, true)].into_iter().filter(|(is_used, _)| *is_used);
        let tables = families
            .map(|(_, ipv6)| FamilyTable { ipv6, keeper: TableKeeper::new(Nft::default(), plan_skeleton(ipv6)) });
        Self {
            node_name: config.node_name.clone(),
            world: World::default(),
            tables: tables.collect(),
            dirty_policies: BTreeSet::new(),
            dirty_pods: BTreeSet::new(),
        }
    }

    pub(crate) fn note_policy(&mut self, change: &Change<NetworkPolicy>) {
        let object = change.object();
        let key = object_key(object.as_ref());
        let new = (!matches!(change, Change::Deleted(_))).then(|| Policy::of(object));
        let old = match new.clone() {
            Some(policy) => self.world.policies.insert(key.clone(), policy),
            None => self.world.policies.remove(&key),
        };
        if old == new {
            return;
        }
        for policy in old.iter().chain(&new) {
            let pods = self.world.subjects(policy).map(|pod| ObjectKey::new(&*pod.namespace, &*pod.name));
            self.dirty_pods.extend(pods);
        }
        self.dirty_policies.insert(key);
    }

    pub(crate) fn note_pod(&mut self, change: &Change<CorePod>, gate: &GateKeeper) {
        let object = change.object();
        let pod = Pod::of(object, &self.node_name, gate.addresses(object));
        self.put_pod(object_key(object.as_ref()), pod.filter(|_| !matches!(change, Change::Deleted(_))));
    }

    /// A pod of this node that is about to start.
    pub(crate) fn note_admission(&mut self, admission: &Admission) {
        let pod = Pod::of(&admission.pod, &self.node_name, &admission.ips);
        self.put_pod(object_key(&admission.pod), pod);
    }

    fn put_pod(&mut self, key: ObjectKey, new: Option<Pod>) {
        let old = self.world.put_pod(&key, new.clone());
        if old == new {
            return;
        }
        let World { policies, .. } = &self.world;
        let concerned =
            policies.iter().filter(|(_, policy)| old.iter().chain(&new).any(|pod| self.world.concerns(policy, pod)));
        self.dirty_policies.extend(concerned.map(|(key, _)| key.clone()));
        if old.iter().chain(&new).any(|pod| pod.is_local) {
            self.dirty_pods.insert(key);
        }
    }

    pub(crate) fn note_namespace(&mut self, change: &Change<Namespace>) {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let labels = change.object().metadata.labels.clone().unwrap_or_default();
        let new = (!matches!(change, Change::Deleted(_))).then_some(labels);
        let old = match new.clone() {
            Some(labels) => self.world.namespaces.insert(name, labels),
            None => self.world.namespaces.remove(&name),
        };
        if old == new {
            return;
        }
        let both: Vec<&BTreeMap<String, String>> = old.iter().chain(&new).collect();
        let concerned = self
            .world
            .policies
            .iter()
            .filter(|(_, policy)| both.iter().any(|labels| looks_at_namespace(policy, labels)));
        self.dirty_policies.extend(concerned.map(|(key, _)| key.clone()));
    }

    /// Whether anything waits to be applied.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty_policies.is_empty()
            || !self.dirty_pods.is_empty()
            || self.tables.iter().any(|table| table.keeper.is_dirty())
    }

    /// Plans what is dirty and brings the kernel to it.
    pub(crate) async fn sync(&mut self) -> Result<(), NftError> {
        let (policies, pods) = (std::mem::take(&mut self.dirty_policies), std::mem::take(&mut self.dirty_pods));
        for table in &mut self.tables {
            for key in &policies {
                let policy = self.world.policies.get(key);
                let fragment = policy.map(|policy| plan_policy(&self.world, policy, table.ipv6));
                table.keeper.put(&policy_owner(key), fragment.unwrap_or_default());
            }
            for key in &pods {
                let pod = self.world.pods.get(&key.namespace).and_then(|pods| pods.get(&key.name));
                let fragment: Option<Fragment> = pod.map(|pod| plan_pod(&self.world, pod, table.ipv6));
                table.keeper.put(&pod_owner(key), fragment.unwrap_or_default());
            }
            table.keeper.apply().await?;
        }
        Ok(())
    }

    /// The regular round: are the rules still there?
    pub(crate) async fn look_after(&mut self) -> Result<(), NftError> {
        for table in &mut self.tables {
            if table.keeper.verify().await? == Verified::Restored {
                tracing::warn!("the rules for network policies were gone or changed and are restored");
            }
            table.keeper.sweep().await?;
        }
        Ok(())
    }
}
