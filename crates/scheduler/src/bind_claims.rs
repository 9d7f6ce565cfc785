//! Carrying out what was found for a pod's claims: they are protected, allocated and reserved for the pod, and the pod
//! waits until devices that must be attached are.
//!
//! Decides nothing about nodes. Invariants: a device that was promised to a pod counts as taken ([`Promised`]) until the
//! caches show it or writing it has failed; an allocation that somebody else wrote is never overwritten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_client::{Client, EventType, Informer, Recorder, object_key, object_reference};
use kedge_meta::{Clock, ObjectKey};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tokio::time::Instant;

use crate::metrics::SchedulerMetrics;
use crate::plugins::{Attached, ClaimPlan, KnownClaim, allocation, attached, is_made_for, is_reserved_for};
use crate::pod_info::PodInfo;

/// Keeps an allocated claim.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// So long after a claim was made it may be missing in the cache.
const PATIENCE_WITH_CACHE: Duration = Duration::from_secs(120);
/// Upstream's default of `bindingTimeout`.
const PATIENCE: Duration = Duration::from_secs(600);
const ATTEMPTS: usize = 5;

/// What a claim was promised.
#[derive(Debug)]
struct Promise {
    key: ObjectKey,
    allocation: AllocationResult,
    /// The claim as it was written, until the cache has it.
    written: Option<Arc<ResourceClaim>>,
    /// Until when a claim that was made just now may be missing in the cache.
    may_miss_until: Option<Instant>,
}

/// Allocations that are decided but that the caches don't show yet, by the claims' uids.
#[derive(Debug, Default)]
pub(crate) struct Promised(HashMap<String, Promise>);

fn uid(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

/// The API compares versions as numbers; one that is none is older than all.
fn version(claim: &ResourceClaim) -> u64 {
    claim.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

impl Promised {
    pub(crate) fn add(&mut self, plans: &[ClaimPlan]) {
        for plan in plans {
            if let Some(allocation) = &plan.allocation {
                let (key, allocation) = (object_key(&*plan.claim), allocation.clone());
                let promise = Promise { key, allocation, written: None, may_miss_until: None };
                self.0.insert(uid(&plan.claim).to_owned(), promise);
            }
        }
    }

    /// A binding has ended: what was written stays until the cache shows it.
    pub(crate) fn settle(&mut self, plans: &[ClaimPlan], written: &[Arc<ResourceClaim>]) {
        for plan in plans.iter().filter(|plan| plan.is_unmade()) {
            let promise = self.0.remove(uid(&plan.claim));
            let made = written.iter().find(|claim| {
                let owners = |claim: &ResourceClaim| claim.metadata.owner_references.clone();
                claim.metadata.annotations == plan.claim.metadata.annotations && owners(claim) == owners(&plan.claim)
            });
            if let Some((made, promise)) = made.zip(promise) {
                let may_miss_until = Some(Instant::now() + PATIENCE_WITH_CACHE);
                let promise =
                    Promise { key: object_key(&**made), written: Some(made.clone()), may_miss_until, ..promise };
                self.0.insert(uid(made).to_owned(), promise);
            }
        }
        for plan in plans.iter().filter(|plan| plan.allocation.is_some() && !plan.is_unmade()) {
            match written.iter().find(|claim| claim.metadata.uid == plan.claim.metadata.uid) {
                None => {
                    self.0.remove(uid(&plan.claim));
                }
                Some(claim) => {
                    if let Some(promise) = self.0.get_mut(uid(claim)) {
                        promise.written = Some(claim.clone());
                    }
                }
            }
        }
    }

    /// Forgets what the cache shows by now.
    pub(crate) fn forget_shown(&mut self, claims: &Informer<ResourceClaim>) {
        self.0.retain(|uid, promise| {
            let Some(written) = &promise.written else { return true };
            match claims.get(&promise.key).filter(|shown| shown.metadata.uid.as_deref() == Some(uid)) {
                Some(shown) => version(&shown) < version(written),
                None => promise.may_miss_until.is_some_and(|until| Instant::now() < until),
            }
        });
    }

    /// A claim as other pods must see it.
    pub(crate) fn show(&self, claim: Arc<ResourceClaim>) -> KnownClaim {
        match self.0.get(uid(&claim)) {
            None => KnownClaim { claim, is_promised: false },
            Some(Promise { written: Some(written), .. }) => KnownClaim { claim: written.clone(), is_promised: false },
            Some(Promise { written: None, .. }) => KnownClaim { claim, is_promised: true },
        }
    }

    pub(crate) fn knows(&self, claim: &ResourceClaim) -> bool {
        self.0.contains_key(uid(claim))
    }

    pub(crate) fn allocations(&self) -> impl Iterator<Item = &AllocationResult> {
        self.0.values().map(|promise| &promise.allocation)
    }
}

/// Allocates and reserves the claims of pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClaimBinder {
    pub(crate) client: Client,
    pub(crate) claims: Informer<ResourceClaim>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<SchedulerMetrics>,
}

impl ClaimBinder {
    /// Writes what was planned for a pod's claims. Says what was written even where a later step failed.
    pub(crate) async fn bind(
        &self,
        pod: &PodInfo,
        node: &str,
        plans: &[ClaimPlan],
        written: &mut Vec<Arc<ResourceClaim>>,
    ) -> Result<(), String> {
        let failed = |why: String| format!("running PreBind plugin \"DynamicResources\": {why}");
        for plan in plans.iter().filter(|plan| !is_reserved_for(pod, &plan.claim)) {
            if plan.is_unmade() {
                self.make(pod, plan, written).await.map_err(failed)?;
            } else {
                written.push(Arc::new(self.reserve(pod, plan).await.map_err(failed)?));
            }
        }
        let latest = |plan: &ClaimPlan| {
            let is_it = |claim: &&Arc<ResourceClaim>| match plan.is_unmade() {
                true => is_made_for(claim, pod),
                false => claim.metadata.uid == plan.claim.metadata.uid,
            };
            written.iter().find(is_it).unwrap_or(&plan.claim).clone()
        };
        let claims: Vec<Arc<ResourceClaim>> = plans.iter().map(latest).collect();
        if claims.iter().all(|claim| attached(claim) == Attached::Yes) {
            return Ok(());
        }
        let text = format!("waiting for binding conditions for device on node {node}");
        self.recorder.event(&object_reference(pod.pod()), EventType::Normal, "BindingConditionsPending", text);
        let waited = tokio::time::timeout(PATIENCE, self.wait(&claims)).await;
        waited.unwrap_or_else(|_| Err("device binding timeout".to_owned())).map_err(failed)
    }

    /// Makes the claim for the pod's extended resources, with its devices, and says on the pod which container has what of it.
    async fn make(&self, pod: &PodInfo, plan: &ClaimPlan, written: &mut Vec<Arc<ResourceClaim>>) -> Result<(), String> {
        let key = object_key(&*plan.claim);
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &key.namespace);
        let mut claim = ResourceClaim::clone(&plan.claim);
        (claim.metadata.name, claim.metadata.uid) = (None, None);
        let made = api.create(&PostParams::default(), &claim).await;
        self.metrics.made_claim(made.is_ok());
        let made = made.map_err(|error| format!("create claim for extended resources {key}: {}", text(&error)))?;
        // Whatever fails from here on, it is known what has to go.
        let at = written.len();
        written.push(Arc::new(made.clone()));
        let name = made.metadata.name.clone().unwrap_or_default();
        let reserved = ClaimPlan { claim: Arc::new(made), ..plan.clone() };
        written[at] = Arc::new(self.reserve(pod, &reserved).await?);
        let status =
            json!({"extendedResourceClaimStatus": {"resourceClaimName": name, "requestMappings": plan.mappings}});
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.key.namespace);
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid}, "status": status}));
        let patched = pods.patch_status(&pod.key.name, &PatchParams::default(), &patch).await;
        let failed =
            |error: kube::Error| format!("update pod {} ExtendedResourceClaimStatus: {}", pod.key, text(&error));
        patched.map(drop).map_err(failed)
    }

    /// Adds the allocation, the protection and the pod's reservation, over changes that others make meanwhile.
    async fn reserve(&self, pod: &PodInfo, plan: &ClaimPlan) -> Result<ResourceClaim, String> {
        let key = object_key(&*plan.claim);
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &key.namespace);
        let mut claim = ResourceClaim::clone(&plan.claim);
        for _ in 0..ATTEMPTS {
            match self.reserve_once(&api, &key, pod, plan, claim).await {
                Ok(claim) => return Ok(claim),
                Err(Refused::For(why)) => return Err(why),
                Err(Refused::Conflict) => {}
            }
            let again = api.get(&key.name).await;
            claim = again.map_err(|error| format!("get updated claim {key} after conflict: {}", text(&error)))?;
        }
        Err(format!("add reservation to claim {key}: the claim keeps changing"))
    }

    async fn reserve_once(
        &self,
        api: &Api<ResourceClaim>,
        key: &ObjectKey,
        pod: &PodInfo,
        plan: &ClaimPlan,
        mut claim: ResourceClaim,
    ) -> Result<ResourceClaim, Refused> {
        let refuse = |why: &str| Err(Refused::For(format!("claim {key} {why}")));
        if claim.metadata.deletion_timestamp.is_some() || claim.metadata.uid != plan.claim.metadata.uid {
            return refuse("got deleted in the meantime");
        }
        let is_allocated = allocation(&claim).is_some();
        match &plan.allocation {
            Some(_) if is_allocated => return refuse("got allocated elsewhere in the meantime"),
            None if !is_allocated => return refuse("got deallocated elsewhere in the meantime"),
            _ => {}
        }
        let parameters = PostParams::default();
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if plan.allocation.is_some() && !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            let protected = api.replace(&key.name, &parameters, &claim).await;
            claim = protected.map_err(|error| Refused::new("add finalizer to claim", key, &error))?;
        }
        let status = claim.status.get_or_insert_default();
        if let Some(allocation) = &plan.allocation {
            let now = Some(Time(self.clock.now()));
            status.allocation = Some(AllocationResult { allocation_timestamp: now, ..allocation.clone() });
        }
        status.reserved_for.get_or_insert_default().push(consumer(pod));
        let what = match plan.allocation {
            Some(_) => "add allocation and reservation to claim",
            None => "add reservation to claim",
        };
        let written = api.replace_status(&key.name, &parameters, &claim).await;
        written.map_err(|error| Refused::new(what, key, &error))
    }

    async fn wait(&self, claims: &[Arc<ResourceClaim>]) -> Result<(), String> {
        let mut changes = self.claims.subscribe();
        loop {
            let mut all = true;
            for claim in claims {
                let now = self.claims.get(&object_key(&**claim)).filter(|now| version(now) >= version(claim));
                match attached(now.as_ref().unwrap_or(claim)) {
                    Attached::Yes => {}
                    Attached::NotYet => all = false,
                    Attached::Failed(why) => return Err(why),
                }
            }
            if all {
                return Ok(());
            }
            changes.next().await;
        }
    }

    /// The pod could not be bound: it needs its claims no more. They stay allocated, for its next attempt.
    pub(crate) async fn unreserve(&self, pod: &PodInfo, written: &[Arc<ResourceClaim>]) {
        for claim in written {
            if is_made_for(claim, pod) {
                self.remove(claim).await;
                continue;
            }
            let key = object_key(&**claim);
            let patch = json!({
                "metadata": {"uid": claim.metadata.uid},
                "status": {"reservedFor": [{"$patch": "delete", "uid": pod.pod().metadata.uid}]},
            });
            let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &key.namespace);
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Err(error) = patched {
                tracing::warn!(claim = %key, %error, "a claim could not be given back");
            }
        }
    }

    /// Deletes a claim that was made for a pod's extended resources and is of no use to it.
    pub(crate) async fn remove(&self, claim: &ResourceClaim) {
        let key = object_key(claim);
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": claim.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]},
        }));
        let unprotected = api.patch(&key.name, &PatchParams::default(), &patch).await;
        let uid = claim.metadata.uid.clone();
        let precondition = Some(Preconditions { uid, ..Preconditions::default() });
        let parameters = DeleteParams { preconditions: precondition, ..DeleteParams::default() };
        let deleted = match unprotected {
            Ok(_) => api.delete(&key.name, &parameters).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(claim = %key, %error, "a claim for extended resources could not be deleted");
        }
    }

    /// Takes an allocation back that is of no use where its pod could run.
    pub(crate) async fn give_back(&self, claim: &ResourceClaim) {
        let key = object_key(claim);
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        (status.allocation, status.reserved_for, status.devices) = (None, None, None);
        let api = Api::<ResourceClaim>::namespaced(self.client.clone(), &key.namespace);
        if let Err(error) = api.replace_status(&key.name, &PostParams::default(), &changed).await {
            tracing::warn!(claim = %key, %error, "a claim's devices could not be given back");
        }
    }
}

fn consumer(pod: &PodInfo) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.pod().metadata.uid.clone().unwrap_or_default(),
    }
}

/// Why a claim was not written.
enum Refused {
    Conflict,
    For(String),
}

impl Refused {
    fn new(what: &str, key: &ObjectKey, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            other => Self::For(format!("{what} {key}: {}", text(other))),
        }
    }
}

fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ContainerExtendedResourceRequest;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn claim(version: &str, allocated: bool) -> Arc<ResourceClaim> {
        let status = if allocated { json!({"allocation": {}}) } else { json!({}) };
        let value = json!({"metadata": {"name": "c", "namespace": "d", "uid": "u", "resourceVersion": version},
            "spec": {}, "status": status});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn what_is_promised_counts_until_it_is_settled() {
        let open = claim("1", false);
        let allocation_of = Some(AllocationResult::default());
        let plans = [ClaimPlan { claim: open.clone(), allocation: allocation_of, mappings: Vec::new() }];
        let mut promised = Promised::default();
        promised.add(&plans);
        assert!(promised.show(open.clone()).is_promised && promised.allocations().count() == 1);
        promised.settle(&plans, &[claim("2", true)]);
        let shown = promised.show(open.clone());
        assert!(
            !shown.is_promised && allocation(&shown.claim).is_some(),
            "what was written is seen before the cache has it"
        );
        promised.settle(&plans, &[]);
        assert_eq!(promised.allocations().count(), 0, "what was not written is free again");
        let request = ContainerExtendedResourceRequest { request_name: "r".to_owned(), ..Default::default() };
        let unmade = [ClaimPlan { mappings: vec![request], ..plans[0].clone() }];
        promised.add(&unmade);
        promised.settle(&unmade, &[]);
        assert_eq!(promised.allocations().count(), 0, "nothing was made");
        promised.add(&unmade);
        let made = Arc::new(ResourceClaim {
            metadata: ObjectMeta { uid: Some("other".to_owned()), ..open.metadata.clone() },
            ..ResourceClaim::clone(&open)
        });
        promised.settle(&unmade, std::slice::from_ref(&made));
        assert!(promised.knows(&made) && !promised.knows(&open), "it counts under its own name now");
        promised.forget_shown(&Informer::fixed([]));
        assert_eq!(promised.allocations().count(), 1, "the cache may not have it yet");
        promised.forget_shown(&Informer::fixed([ResourceClaim::clone(&made)]));
        assert_eq!(promised.allocations().count(), 0);
        let reserved = [ClaimPlan { claim: open.clone(), allocation: None, mappings: Vec::new() }];
        promised.add(&reserved);
        assert!(!promised.show(open).is_promised);
    }
}
