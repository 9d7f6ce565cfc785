//! Between changes of objects and the kernel: remembers which Services are dirty, plans them, hands the plans over.
//!
//! Invariant: what was noted is planned before the next apply; what failed stays to be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Change, EventType, object_key, object_reference};
use kedge_meta::ObjectKey;
use kedge_netfilter::{Conntrack, ConntrackError, Fragment, Nft, NftError, StaleFlow, Sysctls, TableKeeper, Verified};

use crate::balance::HAIRPINS;
use crate::config::{Config, Deps};
use crate::health::HealthServers;
use crate::plan::{HealthCheck, NodeView, plan_node, plan_service};
use crate::skeleton::{CLUSTER_IPS, plan_skeleton};
use crate::stale::{UdpPort, plan_left_over_flows, plan_stale_flows};
use crate::tracking::shortage;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// What several ports and Services may want alike.
const SHARED: [&str; 2] = [CLUSTER_IPS, HAIRPINS];
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// One address family's table and what was planned for it.
struct FamilyTable {
    ipv6: bool,
    keeper: TableKeeper,
    udp_by_service: HashMap<ObjectKey, Vec<UdpPort>>,
}

pub(crate) struct Worker {
    deps: Deps,
    node: NodeView,
    tables: Vec<FamilyTable>,
    slices_by_service: HashMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
    dirty: BTreeSet<ObjectKey>,
    health_checks: BTreeMap<ObjectKey, Option<HealthCheck>>,
    health_servers: HealthServers,
    stale_flows: BTreeSet<StaleFlow>,
    conntrack: Conntrack,
    conntrack_missing: bool,
    took_over: bool,
    conflicts: BTreeSet<String>,
    sysctls: Sysctls,
    tracking_shortage: Option<String>,
}

impl Worker {
    pub(crate) fn new(config: &Config, deps: Deps, health_servers: HealthServers) -> Self {
        let ranges = config.cluster_cidrs.iter().chain(&config.service_cidrs).map(|range| range.addr());
        let addresses: Vec<_> = config.node_ips.iter().copied().chain(ranges).collect();
        let families = [false, true].into_iter().filter(|ipv6| addresses.iter().any(|ip| ip.is_ipv6() == *ipv6));
        let tables = families.map(|ipv6| {
            let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(config, ipv6));
            // No Service's owner name is without a slash.
            keeper.put("node", plan_node(config, ipv6));
            FamilyTable { ipv6, keeper, udp_by_service: HashMap::new() }
        });
        let node = NodeView::new(config);
        Self {
            deps,
            node,
            tables: tables.collect(),
            slices_by_service: HashMap::new(),
            dirty: BTreeSet::new(),
            health_checks: BTreeMap::new(),
            health_servers,
            stale_flows: BTreeSet::new(),
            conntrack: Conntrack::default(),
            conntrack_missing: false,
            took_over: false,
            conflicts: BTreeSet::new(),
            sysctls: Sysctls::new(config.state_dir.join("proxy-sysctls.json")),
            tracking_shortage: None,
        }
    }

    pub(crate) fn note_service(&mut self, change: &Change<Service>) {
        self.dirty.insert(object_key(change.object().as_ref()));
    }

    pub(crate) fn note_slice(&mut self, change: &Change<EndpointSlice>) {
        let (old, new) = match change {
            Change::Added(new) => (None, Some(new)),
            Change::Updated { old, new } => (Some(old), Some(new)),
            Change::Deleted(old) => (Some(old), None),
        };
        if let Some((slice, service)) = old.and_then(|slice| Some((slice, service_of(slice)?))) {
            if let Some(slices) = self.slices_by_service.get_mut(&service) {
                slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
                if slices.is_empty() {
                    self.slices_by_service.remove(&service);
                }
            }
            self.dirty.insert(service);
        }
        if let Some((slice, service)) = new.and_then(|slice| Some((slice, service_of(slice)?))) {
            let name = slice.metadata.name.clone().unwrap_or_default();
            self.slices_by_service.entry(service.clone()).or_default().insert(name, slice.clone());
            self.dirty.insert(service);
        }
    }

    /// Takes note of a node; says whether ours takes traffic from load balancers, if it was ours.
    pub(crate) fn note_node(&mut self, change: &Change<Node>) -> Option<bool> {
        let node = change.object();
        if node.metadata.name.as_deref() != Some(self.node.name.as_str()) {
            return None;
        }
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned();
        if zone != self.node.zone {
            self.node.zone = zone;
            self.dirty.extend(self.deps.services.list().iter().map(|service| object_key(service.as_ref())));
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let leaving =
            node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == LEAVING_TAINT);
        Some(!leaving && !matches!(change, Change::Deleted(_)))
    }

    /// Whether anything waits to be applied.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.tables.iter().any(|table| table.keeper.is_dirty())
    }

    /// Plans what is dirty and brings the kernel to it.
    pub(crate) async fn sync(&mut self) -> Result<(), NftError> {
        self.plan_dirty();
        for table in &mut self.tables {
            table.keeper.apply().await?;
        }
        self.tell_conflicts();
        if !std::mem::replace(&mut self.took_over, true) {
            self.find_left_over_flows().await;
        }
        self.remove_stale_flows().await;
        self.set_health_checks().await;
        Ok(())
    }

    fn plan_dirty(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let service = self.deps.services.get(&key);
            let slices = self.slices_by_service.get(&key);
            let slices = slices.into_iter().flat_map(|slices| slices.values().map(Arc::as_ref));
            let owner = key.to_string();
            let mut health_check = None;
            for table in &mut self.tables {
                let Some(service) = &service else {
                    table.keeper.put(&owner, Fragment::default());
                    let old = table.udp_by_service.remove(&key).unwrap_or_default();
                    self.stale_flows.extend(plan_stale_flows(&old, &[]));
                    continue;
                };
                let plan = plan_service(service, slices.clone(), &self.node, table.ipv6);
                table.keeper.put(&owner, plan.fragment);
                health_check = health_check.or(plan.health_check);
                let old = match plan.udp.is_empty() {
                    true => table.udp_by_service.remove(&key),
                    false => table.udp_by_service.insert(key.clone(), plan.udp.clone()),
                };
                self.stale_flows.extend(plan_stale_flows(&old.unwrap_or_default(), &plan.udp));
            }
            self.health_checks.insert(key, health_check);
        }
    }

    fn tell_conflicts(&mut self) {
        let conflicts = self.tables.iter().flat_map(|table| table.keeper.state().conflicts());
        let contested = conflicts.filter(|(key, _)| !SHARED.contains(&key.container.as_ref()));
        let conflicts: BTreeSet<String> =
            contested.map(|(key, owners)| format!("{} ({}): {}", key.key, key.container, owners.join(", "))).collect();
        for conflict in conflicts.difference(&self.conflicts) {
            tracing::warn!(conflict, "several Services claim the same address and port; the first has it");
        }
        self.conflicts = conflicts;
    }

    async fn find_left_over_flows(&mut self) {
        for table in &self.tables {
            let ports: Vec<UdpPort> = table.udp_by_service.values().flatten().cloned().collect();
            if ports.is_empty() {
                continue;
            }
            match self.conntrack.udp_flows(table.ipv6).await {
                Ok(flows) => self.stale_flows.extend(plan_left_over_flows(&ports, &self.node.ips, &flows)),
                Err(error) => tracing::warn!(%error, "UDP flows of before the start can't be looked through"),
            }
        }
    }

    async fn remove_stale_flows(&mut self) {
        for flow in std::mem::take(&mut self.stale_flows) {
            match self.conntrack.remove(&flow).await {
                Ok(()) => self.conntrack_missing = false,
                Err(error @ ConntrackError::Missing) => {
                    if !std::mem::replace(&mut self.conntrack_missing, true) {
                        tracing::warn!(%error, "UDP clients may go on sending to endpoints that are gone");
                    }
                }
                Err(error) => tracing::warn!(%error, ?flow, "a stale UDP flow could not be removed"),
            }
        }
    }

    async fn set_health_checks(&mut self) {
        for (key, check) in std::mem::take(&mut self.health_checks) {
            let Err((port, error)) = self.health_servers.set(&key, check.as_ref()).await else { continue };
            let node = &self.node.name;
            let message = format!("node {node} failed to start healthcheck \"{key}\" on port {port}: {error}");
            tracing::warn!(service = %key, port, %error, "a health check port can't be opened");
            if let (Some(recorder), Some(service)) = (&self.deps.recorder, self.deps.services.get(&key)) {
                let about = object_reference(service.as_ref());
                recorder.event(&about, EventType::Warning, "FailedToStartServiceHealthcheck", message);
            }
            // Tried again with the next round.
            self.health_checks.insert(key, check);
        }
    }

    /// The regular round: looks after the tables and what could not be done before.
    pub(crate) async fn look_after(&mut self) -> Result<(), NftError> {
        for table in &mut self.tables {
            if table.keeper.verify().await? == Verified::Restored {
                tracing::warn!("the rules for Services were gone or changed and are restored");
            }
            table.keeper.sweep().await?;
        }
        self.set_health_checks().await;
        self.look_at_tracking();
        Ok(())
    }

    fn look_at_tracking(&mut self) {
        let shortage = shortage(&self.sysctls);
        match (&shortage, &self.tracking_shortage) {
            (Some(shortage), None) => tracing::warn!(shortage, "the table of tracked connections is full"),
            (None, Some(_)) => tracing::info!("the table of tracked connections has room again"),
            _ => {}
        }
        self.tracking_shortage = shortage;
    }

    /// Why the rules work only in part, if so.
    pub(crate) fn shortcoming(&self) -> Option<(&'static str, String)> {
        if let Some(shortage) = &self.tracking_shortage {
            return Some(("ConntrackTableFull", shortage.clone()));
        }
        self.conntrack_missing.then(|| ("ConntrackMissing", ConntrackError::Missing.to_string()))
    }
}

/// The Service of a slice; none for the slices that are not for proxies.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let foreign = ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"];
    if foreign.iter().any(|label| labels.contains_key(*label)) {
        return None;
    }
    let name = labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
