//! Claims of pods: prepared by their drivers before the pod's containers start, given back after they have ended.
//!
//! Invariants: a claim is prepared only for a pod that it is reserved for; what was prepared is noted on disk before the
//! driver is asked, so that it is given back also after a restart; a claim is given back with its last pod.

mod drivers;
mod slices;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceClaim as ResourceClaimRequest};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::checkpoint::Checkpoint;
use crate::v1::{Claim, DynamicResource, NodePrepareResourcesResponse, NodeUnprepareResourcesResponse};
pub(crate) use drivers::Drivers;
pub(crate) use slices::wipe;
pub(crate) use state::is_claimed;
use state::{ClaimState, Device, claim_name, extended, is_reserved_for, is_same_request, mapped};

/// The claims that are prepared on this node.
pub(crate) struct Claims {
    client: kube::Client,
    pub(crate) drivers: Drivers,
    checkpoint: Checkpoint,
    /// By namespace and name.
    known: Mutex<BTreeMap<String, ClaimState>>,
    /// Preparing and giving back a claim exclude each other; a slow driver holds up only its own claims.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Claims {
    pub(crate) fn new(client: kube::Client, root: &Path) -> Self {
        let checkpoint = Checkpoint::new(root.join("dra_manager_state"));
        let known = Mutex::new(checkpoint.load());
        Self { client, drivers: Drivers::default(), checkpoint, known, busy: Mutex::default() }
    }

    /// Waits until nobody else works on these claims.
    async fn lock(&self, keys: BTreeSet<String>) -> Vec<OwnedMutexGuard<()>> {
        let locks: Vec<Arc<tokio::sync::Mutex<()>>> = {
            let mut busy = self.busy.lock();
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            keys.into_iter().map(|key| busy.entry(key).or_default().clone()).collect()
        };
        let mut guards = Vec::new();
        // Always in the order of their names, so that no two wait for each other.
        for lock in locks {
            guards.push(lock.lock_owned().await);
        }
        guards
    }

    /// Has the claims of a pod prepared. Safe to repeat.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let entries = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let mut wanted = Vec::new();
        for entry in entries {
            let Some((name, is_made)) = claim_name(pod, entry)? else { continue };
            wanted.push(self.look_up(pod, &name, is_made).await?);
        }
        if let Some(made) = extended(pod) {
            wanted.push(self.look_up(pod, &made.resource_claim_name, true).await?);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let _busy = self.lock(wanted.iter().map(state_key).collect()).await;
        let batches = self.note(uid(pod), &wanted)?;
        for (driver, claims) in batches {
            let answer = self.drivers.get(&driver)?.prepare(claims.clone()).await;
            let answer = answer.map_err(|error| format!("NodePrepareResources: {error}"))?;
            take_prepared(&mut self.known.lock(), &driver, &claims, answer)?;
        }
        let mut known = self.known.lock();
        for claim in &wanted {
            if let Some(state) = known.get_mut(&state_key(claim)) {
                state.is_prepared = true;
            }
        }
        self.checkpoint.save(&*known).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// A claim as the API has it, if the pod may use it.
    async fn look_up(&self, pod: &Pod, name: &str, is_made: bool) -> Result<ResourceClaim, String> {
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), namespace(pod));
        let claim = api.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) => format!("fetch ResourceClaim {name}: {}", status.message),
            other => format!("fetch ResourceClaim {name}: {other}"),
        })?;
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let mut owners = claim.metadata.owner_references.iter().flatten();
        if is_made && !owners.any(|owner| owner.uid == uid(pod)) {
            let namespace = namespace(pod);
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{pod_name} (Pod is not owner)"
            ));
        }
        if !is_reserved_for(&claim, uid(pod)) {
            let claim_uid = claim.metadata.uid.as_deref().unwrap_or_default();
            return Err(format!(
                "pod {pod_name} ({}) is not allowed to use ResourceClaim {name} ({claim_uid})",
                uid(pod)
            ));
        }
        Ok(claim)
    }

    /// Notes that a pod uses claims; what each driver is still to prepare.
    fn note(&self, pod: &str, wanted: &[ResourceClaim]) -> Result<BTreeMap<String, Vec<Claim>>, String> {
        let mut known = self.known.lock();
        let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in wanted {
            let new = ClaimState::of(claim)?;
            for driver in new.drivers.keys() {
                self.drivers.get(driver)?;
            }
            let state = known.entry(state_key(claim)).or_insert_with(|| new.clone());
            if state.uid != new.uid {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                    state.name, state.uid
                ));
            }
            state.pods.insert(pod.to_owned());
            if !state.is_prepared {
                for driver in state.drivers.keys() {
                    batches.entry(driver.clone()).or_default().push(state.claim());
                }
            }
        }
        self.checkpoint.save(&*known).map_err(|error| format!("checkpoint ResourceClaim cache: {error}"))?;
        Ok(batches)
    }

    /// What a container has of its claims, as the pod resources API shows it.
    pub(crate) fn resources(&self, pod: &Pod, container: &Container) -> Vec<DynamicResource> {
        let asked = container.resources.iter().flat_map(|resources| resources.claims.iter().flatten());
        let entries = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let entries: HashMap<&str, _> = entries.map(|entry| (entry.name.as_str(), entry)).collect();
        let known = self.known.lock();
        let of_request = |request: &ResourceClaimRequest| {
            let (name, _) = claim_name(pod, entries.get(request.name.as_str())?).ok().flatten()?;
            let state = known.get(&key(namespace(pod), &name))?;
            Some(state.resource(request.request.as_deref().filter(|wanted| !wanted.is_empty())))
        };
        let of_mapping =
            |(claim, request): (&str, &str)| Some(known.get(&key(namespace(pod), claim))?.resource(Some(request)));
        asked.filter_map(of_request).chain(mapped(pod, container).filter_map(of_mapping)).collect()
    }

    /// The CDI names of what a container asks for.
    pub(crate) fn cdi_names(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let asked = container.resources.iter().flat_map(|resources| resources.claims.iter().flatten());
        let entries = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let entries: HashMap<&str, _> = entries.map(|entry| (entry.name.as_str(), entry)).collect();
        let mut names: Vec<String> = Vec::new();
        for request in asked {
            let Some(entry) = entries.get(request.name.as_str()) else { continue };
            let Some((name, _)) = claim_name(pod, entry)? else { continue };
            let wanted = request.request.as_deref().filter(|wanted| !wanted.is_empty());
            self.add_cdi_names(&mut names, namespace(pod), &name, wanted)?;
        }
        for (claim, request) in mapped(pod, container) {
            self.add_cdi_names(&mut names, namespace(pod), claim, Some(request))?;
        }
        Ok(names)
    }

    /// Adds the CDI names of a claim's devices, of one request or all.
    fn add_cdi_names(
        &self,
        names: &mut Vec<String>,
        namespace: &str,
        claim: &str,
        wanted: Option<&str>,
    ) -> Result<(), String> {
        let known = self.known.lock();
        let state = known.get(&key(namespace, claim)).ok_or_else(|| {
            format!("internal error: unable to get claim info for ResourceClaim {claim} in namespace {namespace}")
        })?;
        for device in state.drivers.values().flatten().filter(|device| is_same_request(device, wanted)) {
            names.extend(device.cdi_ids.iter().filter(|id| !names.contains(id)).cloned().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Has the claims given back that only this pod uses. Safe to repeat.
    pub(crate) async fn unprepare(&self, pod: &str) -> Result<(), String> {
        let used = self.used_by(pod);
        if used.is_empty() {
            return Ok(());
        }
        let _busy = self.lock(used).await;
        let (batches, last) = self.forget(pod);
        for (driver, claims) in batches {
            let answer = self.drivers.get(&driver)?.unprepare(claims.clone()).await;
            let answer = answer.map_err(|error| format!("NodeUnprepareResources: {error}"))?;
            check_unprepared(&claims, &answer)?;
        }
        let mut known = self.known.lock();
        last.iter().for_each(|key| drop(known.remove(key)));
        self.checkpoint.save(&*known).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    fn used_by(&self, pod: &str) -> BTreeSet<String> {
        let known = self.known.lock();
        known.iter().filter(|(_, state)| state.pods.contains(pod)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes a pod out of claims that others use as well; what drivers are to undo of the rest, and its keys.
    fn forget(&self, pod: &str) -> (BTreeMap<String, Vec<Claim>>, Vec<String>) {
        let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut last = Vec::new();
        for (key, state) in self.known.lock().iter_mut().filter(|(_, state)| state.pods.contains(pod)) {
            if state.pods.len() > 1 {
                state.pods.remove(pod);
                continue;
            }
            // A driver that failed half way is asked to prepare again before anybody uses the claim.
            state.is_prepared = false;
            for driver in state.drivers.keys() {
                batches.entry(driver.clone()).or_default().push(state.claim());
            }
            last.push(key.clone());
        }
        (batches, last)
    }

    /// Gives back what pods had that no source knows any more.
    pub(crate) async fn retain(&self, active: &HashSet<String>) {
        let gone: HashSet<String> = {
            let known = self.known.lock();
            known.values().flat_map(|state| state.pods.iter().filter(|pod| !active.contains(*pod)).cloned()).collect()
        };
        for pod in gone {
            if let Err(error) = self.unprepare(&pod).await {
                tracing::info!(uid = pod, error, "Unpreparing pod resources in reconcile loop failed, will retry");
            }
        }
    }
}

fn state_key(claim: &ResourceClaim) -> String {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    key(claim.metadata.namespace.as_deref().unwrap_or_default(), name)
}

/// Takes over what a driver prepared.
fn take_prepared(
    known: &mut BTreeMap<String, ClaimState>,
    driver: &str,
    claims: &[Claim],
    answer: NodePrepareResourcesResponse,
) -> Result<(), String> {
    let answered = answer.claims.len();
    for (uid, outcome) in answer.claims {
        let Some(claim) = claims.iter().find(|claim| claim.uid == uid) else {
            return Err(format!("NodePrepareResources returned result for unknown claim UID {uid}"));
        };
        if !outcome.error.is_empty() {
            return Err(format!("NodePrepareResources failed for ResourceClaim {}: {}", claim.name, outcome.error));
        }
        if let Some(state) = known.get_mut(&key(&claim.namespace, &claim.name)) {
            let devices = outcome.devices.into_iter().map(Device::from).collect();
            state.drivers.insert(driver.to_owned(), devices);
        }
    }
    match claims.len().saturating_sub(answered) {
        0 => Ok(()),
        skipped => Err(format!("NodePrepareResources skipped {skipped} ResourceClaims")),
    }
}

fn check_unprepared(claims: &[Claim], answer: &NodeUnprepareResourcesResponse) -> Result<(), String> {
    for (uid, outcome) in &answer.claims {
        let Some(claim) = claims.iter().find(|claim| claim.uid == *uid) else {
            return Err(format!("NodeUnprepareResources returned result for unknown claim UID {uid}"));
        };
        if !outcome.error.is_empty() {
            return Err(format!("NodeUnprepareResources failed for ResourceClaim {}: {}", claim.name, outcome.error));
        }
    }
    match claims.len().saturating_sub(answer.claims.len()) {
        0 => Ok(()),
        skipped => Err(format!("NodeUnprepareResources skipped {skipped} ResourceClaims")),
    }
}
