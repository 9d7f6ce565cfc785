//! DynamicResources: the claims of a pod must exist, be free for it, and be allocated for the node or allocatable on it.
//!
//! Pure. What was found for the chosen node is carried out by `bind_claims.rs` before the pod is bound.

mod extended;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerExtendedResourceRequest, PodResourceClaim};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceRequestAllocationResult, ResourceClaim, ResourceSlice,
};
use kedge_allocator::{Inventory, Selectors, Site, Taken};

use crate::event::{Event, EventKind, other_labels};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::node_selector_matches;

pub(crate) use extended::{Extended, extended_names, is_made_for};

pub(crate) struct DynamicResources;

/// Upstream's bound of the consumers of one claim.
const MOST_CONSUMERS: usize = 256;
const NOT_HERE: &str = "resourceclaim not available on the node";
const NOT_ENOUGH: &str = "cannot allocate all claims";
const LEFT: &str = "cannot schedule extended resource claim";

/// A claim of the pod, as the caches and what was just decided about it have it.
#[derive(Debug, Clone)]
pub(crate) struct KnownClaim {
    pub(crate) claim: Arc<ResourceClaim>,
    /// Somebody else's pod was just promised devices for it.
    pub(crate) is_promised: bool,
}

/// What the plugin may look at.
#[derive(Debug, Default)]
pub(crate) struct DeviceFacts {
    /// The claims that the pod's entries name, by their names.
    pub(crate) claims: Vec<KnownClaim>,
    pub(crate) slices: Vec<Arc<ResourceSlice>>,
    pub(crate) classes: Vec<Arc<DeviceClass>>,
    pub(crate) taken: Taken,
    pub(crate) selectors: Arc<Selectors>,
    /// What the pod asks for of extended resources behind which classes stand.
    pub(crate) extended: Option<Extended>,
}

/// What is done about one claim before its pod is bound.
#[derive(Debug, Clone)]
pub(crate) struct ClaimPlan {
    pub(crate) claim: Arc<ResourceClaim>,
    /// What it gets; `None` where it is allocated already.
    pub(crate) allocation: Option<AllocationResult>,
    /// Of a claim that has yet to be made for the pod's extended resources: which request is for which container.
    pub(crate) mappings: Vec<ContainerExtendedResourceRequest>,
}

impl ClaimPlan {
    /// Whether the claim has yet to be made.
    pub(crate) fn is_unmade(&self) -> bool {
        !self.mappings.is_empty()
    }
}

/// How the entry of a pod names its claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClaimName {
    /// By this name; made for the pod where the flag is set.
    Is(String, bool),
    /// None is needed.
    NotNeeded,
    /// The claim has not been made yet.
    NotYet,
}

/// The name of the claim of a pod's entry.
pub(crate) fn claim_name(pod: &PodInfo, entry: &PodResourceClaim) -> ClaimName {
    if let Some(name) = entry.resource_claim_name.as_ref().filter(|name| !name.is_empty()) {
        return ClaimName::Is(name.clone(), false);
    }
    let statuses = pod.pod().status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match statuses.into_iter().find(|status| status.name == entry.name) {
        None => ClaimName::NotYet,
        Some(status) => match &status.resource_claim_name {
            Some(name) => ClaimName::Is(name.clone(), true),
            None => ClaimName::NotNeeded,
        },
    }
}

/// The entries of a pod.
pub(crate) fn claim_entries(pod: &PodInfo) -> &[PodResourceClaim] {
    let spec = pod.pod().spec.as_ref();
    spec.and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// Why a pod need not even be tried: upstream keeps such pods out of its queue and says nothing.
pub(crate) fn not_ready(pod: &PodInfo, facts: &DeviceFacts) -> Option<String> {
    claims_of(pod, facts).err()
}

/// What must be done for a pod's claims on a node that passed the filter.
pub(crate) fn claim_plans(pod: &PodInfo, node: &NodeInfo, facts: &DeviceFacts) -> Vec<ClaimPlan> {
    let Ok(claims) = claims_of(pod, facts) else { return Vec::new() };
    let wanted = Wanted { pod, claims, facts, refusal: None };
    let mut allocations = wanted.allocate(node).ok().flatten().unwrap_or_default().into_iter();
    let plan = |known: &&KnownClaim| ClaimPlan {
        claim: known.claim.clone(),
        allocation: if allocation(&known.claim).is_some() { None } else { allocations.next() },
        mappings: Vec::new(),
    };
    let mut plans: Vec<ClaimPlan> = wanted.claims.iter().map(plan).collect();
    if let Some((claim, mappings)) = wanted.extended(node) {
        plans.push(ClaimPlan { claim: Arc::new(claim), allocation: allocations.next(), mappings });
    }
    plans
}

/// The claim that an attempt before this one made for the pod's extended resources, and that has to go.
pub(crate) fn left_behind(facts: &DeviceFacts) -> Option<Arc<ResourceClaim>> {
    facts.extended.as_ref()?.left().cloned()
}

/// An allocated claim that nobody else uses and that can't be used where the pod could run: it is given back, so that it
/// can be allocated elsewhere.
pub(crate) fn to_give_back(pod: &PodInfo, nodes: &[Arc<NodeInfo>], facts: &DeviceFacts) -> Option<Arc<ResourceClaim>> {
    let claims = claims_of(pod, facts).ok()?;
    let is_own = |claim: &ResourceClaim| {
        let mut consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
        consumers.all(|consumer| Some(&consumer.uid) == pod.pod().metadata.uid.as_ref())
    };
    let is_useless = |claim: &ResourceClaim| nodes.iter().any(|node| !is_usable_on(claim, node));
    let found = claims.iter().find(|known| {
        allocation(&known.claim).is_some() && !known.is_promised && is_own(&known.claim) && is_useless(&known.claim)
    });
    found.map(|known| known.claim.clone())
}

pub(crate) fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

pub(crate) fn is_reserved_for(pod: &PodInfo, claim: &ResourceClaim) -> bool {
    let mut consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    consumers.any(|consumer| Some(&consumer.uid) == pod.pod().metadata.uid.as_ref())
}

/// How far the devices of an allocated claim are that must be attached before use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    Yes,
    NotYet,
    Failed(String),
}

/// Whether every device of a claim that says so has been made ready.
pub(crate) fn attached(claim: &ResourceClaim) -> Attached {
    let results = allocation(claim).and_then(|allocation| allocation.devices.as_ref()?.results.as_deref());
    let needed = |result: &&DeviceRequestAllocationResult| {
        result.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty())
    };
    let mut worst = Attached::Yes;
    for result in results.unwrap_or_default().iter().filter(needed) {
        let devices = claim.status.iter().flat_map(|status| status.devices.iter().flatten());
        let mut same = devices.filter(|device| {
            (&device.driver, &device.pool, &device.device) == (&result.driver, &result.pool, &result.device)
        });
        let conditions = same.next().and_then(|device| device.conditions.as_deref()).unwrap_or_default();
        let true_condition =
            |name: &String| conditions.iter().find(|condition| condition.type_ == *name && condition.status == "True");
        if let Some(failed) = result.binding_failure_conditions.iter().flatten().find_map(true_condition) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let (reason, message) = (&failed.reason, &failed.message);
            return Attached::Failed(format!(
                "device binding failed: claim={name}, reason={reason}, message=\"{message}\""
            ));
        }
        if !result.binding_conditions.iter().flatten().all(|name| true_condition(name).is_some()) {
            worst = Attached::NotYet;
        }
    }
    worst
}

fn claims_of<'a>(pod: &PodInfo, facts: &'a DeviceFacts) -> Result<Vec<&'a KnownClaim>, String> {
    let mut claims = Vec::new();
    for entry in claim_entries(pod) {
        let (name, is_made) = match claim_name(pod, entry) {
            ClaimName::Is(name, is_made) => (name, is_made),
            ClaimName::NotNeeded => continue,
            ClaimName::NotYet => return Err(format!("pod \"{}\": ResourceClaim not created yet", pod.key)),
        };
        let found = facts.claims.iter().find(|known| known.claim.metadata.name.as_ref() == Some(&name));
        let known = found.ok_or_else(|| format!("resourceclaim.resource.k8s.io \"{name}\" not found"))?;
        let metadata = &known.claim.metadata;
        if metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim \"{name}\" is being deleted"));
        }
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        let is_owned = owners.iter().any(|owner| Some(&owner.uid) == pod.pod().metadata.uid.as_ref());
        if is_made && !is_owned {
            let (namespace, pod) = (pod.namespace(), &pod.key);
            return Err(format!("ResourceClaim {namespace}/{name} was not created for Pod {pod} (Pod is not owner)"));
        }
        claims.push(known);
    }
    Ok(claims)
}

/// A pod's claims in one cycle.
struct Wanted<'a> {
    pod: &'a PodInfo,
    claims: Vec<&'a KnownClaim>,
    facts: &'a DeviceFacts,
    refusal: Option<String>,
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let facts = cycle.surroundings.devices.as_ref()?;
        if claim_entries(cycle.pod).is_empty() && facts.extended.is_none() {
            return None;
        }
        let (claims, refusal) = match claims_of(cycle.pod, facts) {
            Err(refusal) => (Vec::new(), Some(refusal)),
            Ok(claims) => {
                let refusal = claims.iter().find_map(|known| refusal(cycle.pod, known, facts));
                (claims, refusal)
            }
        };
        Some(Box::new(Wanted { pod: cycle.pod, claims, facts, refusal }))
    }

    fn may_help(&self, _pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Object(change) => change.kind == EventKind::Devices,
            event => event.changed_node(other_labels).is_some(),
        }
    }
}

/// Why a claim lets the pod run on no node.
fn refusal(pod: &PodInfo, known: &KnownClaim, facts: &DeviceFacts) -> Option<String> {
    let claim = &known.claim;
    let name = || format!("{}/{}", pod.namespace(), claim.metadata.name.as_deref().unwrap_or_default());
    if allocation(claim).is_some() {
        let consumers = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref()).map_or(0, Vec::len);
        let is_full = consumers >= MOST_CONSUMERS && !is_reserved_for(pod, claim);
        return is_full.then(|| "resourceclaim in use".to_owned());
    }
    if known.is_promised {
        return Some(format!("resource claim {} is in the process of being allocated", name()));
    }
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    for request in requests {
        let exact = request.exactly.iter().map(|exact| (request.name.clone(), &exact.device_class_name));
        let alternatives = request.first_available.iter().flatten();
        let alternatives = alternatives.map(|sub| (format!("{}/{}", request.name, sub.name), &sub.device_class_name));
        let is_known = |class: &String| facts.classes.iter().any(|known| known.metadata.name.as_ref() == Some(class));
        let mut asked = exact.chain(alternatives).peekable();
        if asked.peek().is_none() {
            return Some(format!("resource claim {}, request {}: unknown request type", name(), request.name));
        }
        if let Some((request, class)) = asked.find(|(_, class)| !is_known(class)) {
            return Some(format!("request {request}: device class {class} does not exist"));
        }
    }
    None
}

fn is_usable_on(claim: &ResourceClaim, node: &NodeInfo) -> bool {
    let selector = allocation(claim).and_then(|allocation| allocation.node_selector.as_ref());
    let is_here = selector.is_none_or(|selector| node_selector_matches(selector, node));
    is_here && !matches!(attached(claim), Attached::Failed(_))
}

impl Wanted<'_> {
    /// The claim that is made for the pod's extended resources on a node, where one is needed.
    fn extended(&self, node: &NodeInfo) -> Option<(ResourceClaim, Vec<ContainerExtendedResourceRequest>)> {
        self.facts.extended.as_ref()?.claim(self.pod, node)
    }

    /// What the claims that have nothing yet would get on a node; last the one that is yet to be made.
    fn allocate(&self, node: &NodeInfo) -> Result<Option<Vec<AllocationResult>>, String> {
        let open = self.claims.iter().filter(|known| allocation(&known.claim).is_none());
        let extended = self.extended(node).map(|(claim, _)| claim);
        let open: Vec<&ResourceClaim> = open.map(|known| &*known.claim).chain(extended.as_ref()).collect();
        if open.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let facts = self.facts;
        let inventory = Inventory {
            slices: &facts.slices,
            classes: &facts.classes,
            taken: &facts.taken,
            selectors: &facts.selectors,
        };
        let matches = |selector: &_| node_selector_matches(selector, node);
        let site = Site { name: &node.name, matches: &matches };
        let share_id = || uuid::Uuid::new_v4().to_string();
        inventory.allocate(&site, &open, &share_id).map_err(|error| match error {
            kedge_allocator::AllocateError::TooLong => format!("node {}: {error}", node.name),
            other => other.to_string(),
        })
    }
}

impl Evaluation for Wanted<'_> {
    fn refusal(&self) -> Option<String> {
        self.refusal.clone()
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        if left_behind(self.facts).is_some() {
            return Verdict::unschedulable(LEFT);
        }
        if self.claims.iter().any(|known| !is_usable_on(&known.claim, node)) {
            return Verdict::unresolvable(NOT_HERE);
        }
        match self.allocate(node) {
            Ok(Some(_)) => Verdict::Fits,
            Ok(None) => Verdict::unresolvable(NOT_ENOUGH),
            Err(why) => Verdict::unresolvable(why),
        }
    }

    /// Earlier alternatives of prioritized lists are liked more.
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let has_alternatives = |known: &&KnownClaim| {
            let requests = known.claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
            requests.into_iter().any(|request| request.first_available.is_some())
        };
        let open = || self.claims.iter().copied().filter(|known| allocation(&known.claim).is_none());
        open().find(|known| has_alternatives(known))?;
        let results = self.allocate(node).ok()??;
        Some(open().zip(&results).map(|(known, result)| alternative_score(&known.claim, result)).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        crate::framework::scale_to_max(scores, false);
    }
}

/// Upstream's bound of a request's alternatives.
const MOST_ALTERNATIVES: i64 = 8;

fn alternative_score(claim: &ResourceClaim, result: &AllocationResult) -> i64 {
    let results = result.devices.as_ref().and_then(|devices| devices.results.as_deref()).unwrap_or_default();
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let score = |request: &k8s_openapi::api::resource::v1::DeviceRequest| {
        let mut alternatives = request.first_available.iter().flatten();
        let chosen = alternatives.position(|sub| {
            let full = format!("{}/{}", request.name, sub.name);
            results.iter().any(|result| result.request == full)
        })?;
        Some(MOST_ALTERNATIVES - i64::try_from(chosen).unwrap_or(MOST_ALTERNATIVES))
    };
    requests.into_iter().filter_map(score).sum()
}

#[cfg(test)]
mod tests;
