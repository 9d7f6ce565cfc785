//! Which nodes need a daemon's pod, which pods go, and how an update moves over the nodes.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};

use crate::history::REVISION_HASH;
use crate::int_or_percent::resolve;
use crate::owners::controller_reference;
use crate::pods::{from_template, is_available, is_ready, name_of, node_name, phase};
use crate::taints::{node_affinity_allows, taints_of, untolerated};

const NAME_FIELD: &str = "metadata.name";
/// How often the template changed, which the API counts, and where pods say it: older than revisions, and still there.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
/// Taints that daemons live with, and their effects.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Whether a daemon's pod belongs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) should_run: bool,
    pub(crate) may_continue: bool,
}

/// The pod template with the tolerations that every daemon has.
pub(crate) fn daemon_template(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let spec = template.spec.get_or_insert_default();
    let on_host = (spec.host_network == Some(true)).then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    template
}

/// Whether pods of a (daemon) template belong on a node.
pub(crate) fn fit(template: &PodTemplateSpec, node: &Node) -> Fit {
    let none = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&none);
    let names_other = spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != name_of(&node.metadata));
    if names_other || !node_affinity_allows(spec, node) {
        return Fit { should_run: false, may_continue: false };
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = taints_of(node);
    Fit {
        should_run: untolerated(taints, tolerations, &["NoSchedule", "NoExecute"]).is_none(),
        may_continue: untolerated(taints, tolerations, &["NoExecute"]).is_none(),
    }
}

/// The registry that only the images of the machine itself have; nothing can be pulled from it.
const MACHINE_REGISTRY: &str = "localhost/";
/// So many images a node lists at most, so that a full list says nothing of an image that is not in it.
const LISTED_IMAGES: usize = 50;

/// Whether a node still lacks an image of the template that can only come to it by hand, so that a new pod could not start
/// there. Whoever brings the image makes the node list it, and the update goes on.
// DIVERGES: upstream replaces the pod of such a node by one that waits for its image.
pub(crate) fn awaits_image(template: &PodTemplateSpec, node: &Node) -> bool {
    let Some(listed) = node.status.as_ref().and_then(|status| status.images.as_ref()) else { return false };
    if listed.is_empty() || listed.len() >= LISTED_IMAGES {
        return false;
    }
    let has = |image: &str| listed.iter().any(|known| known.names.iter().flatten().any(|name| name == image));
    let Some(spec) = &template.spec else { return false };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut images = containers.filter_map(|container| container.image.as_deref());
    images.any(|image| image.starts_with(MACHINE_REGISTRY) && !has(image))
}

/// The node that a daemon's pod is meant for, also while it is not bound yet.
pub(crate) fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(node) = node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    named.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

/// The pod for a node, which only that node's scheduling can take.
pub(crate) fn pod_for(set: &DaemonSet, template: &PodTemplateSpec, hash: &str, node: &str) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = from_template(template, controller_reference(set), namespace);
    let labels = pod.metadata.labels.get_or_insert_default();
    let annotations = set.metadata.annotations.as_ref();
    let generation = annotations.and_then(|annotations| annotations.get(TEMPLATE_GENERATION));
    labels.extend(generation.map(|generation| (GENERATION_LABEL.to_owned(), generation.clone())));
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    let field = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    // The template's own requirements were met when the node was chosen.
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    let affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_with(Affinity::default);
    affinity
        .node_affinity
        .get_or_insert_with(NodeAffinity::default)
        .required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// One DaemonSet with everything that decides about its pods.
pub(crate) struct View<'a> {
    pub(crate) spec: &'a DaemonSetSpec,
    /// From [`daemon_template`].
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) nodes: &'a [Arc<Node>],
    pub(crate) pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Pods that were meant for nodes which are gone.
    pub(crate) stray: Vec<Arc<Pod>>,
    pub(crate) hash: &'a str,
    pub(crate) now: Timestamp,
}

/// What to do with pods.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Nodes that get a pod.
    pub(crate) create: Vec<String>,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods that ended though they should not, with their nodes.
    pub(crate) ended: Vec<(String, Arc<Pod>)>,
}

impl<'a> View<'a> {
    pub(crate) fn new(
        spec: &'a DaemonSetSpec,
        template: &'a PodTemplateSpec,
        nodes: &'a [Arc<Node>],
        pods: &[Arc<Pod>],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> =
            nodes.iter().map(|node| (name_of(&node.metadata).to_owned(), Vec::new())).collect();
        let mut stray = Vec::new();
        for pod in pods {
            match target_node(pod).and_then(|node| by_node.get_mut(node)) {
                Some(of_node) => of_node.push(pod.clone()),
                None if node_name(pod).is_none() => stray.push(pod.clone()),
                // The pod collector sees to pods that are bound to lost nodes.
                None => {}
            }
        }
        for of_node in by_node.values_mut() {
            of_node.sort_by_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (node_name(pod).is_none(), created, pod.metadata.name.clone())
            });
        }
        Self { spec, template, nodes, pods: by_node, stray, hash, now }
    }

    fn on(&self, node: &Node) -> &[Arc<Pod>] {
        self.pods.get(name_of(&node.metadata)).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(REVISION_HASH)).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    /// How many nodes take its pods.
    pub(crate) fn desired(&self) -> i32 {
        self.nodes.iter().filter(|node| fit(self.template, node).should_run).count() as i32
    }

    /// Surge and unavailability; never both zero.
    fn limits(&self) -> (i32, i32) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let total = self.desired();
        let number = |value: Option<&_>| value.and_then(|value| resolve(value, total, true));
        let surge = number(rolling.and_then(|rolling| rolling.max_surge.as_ref())).unwrap_or_default();
        let unavailable = number(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())).unwrap_or(1);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn is_on_delete(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    fn allows_surge(&self) -> bool {
        !self.is_on_delete() && self.limits().0 > 0
    }
}

/// Puts a pod on each node that should have one, and takes away what should not be there.
pub(crate) fn plan_nodes(view: &View<'_>) -> Plan {
    let mut plan =
        Plan { delete: view.stray.iter().filter(|pod| !is_deleted(pod)).cloned().collect(), ..Plan::default() };
    for node in view.nodes {
        let pods = view.on(node);
        let fit = fit(view.template, node);
        let name = name_of(&node.metadata);
        if !fit.may_continue {
            plan.delete.extend(pods.iter().filter(|pod| !is_deleted(pod)).cloned());
        } else if pods.is_empty() {
            plan.create.extend(fit.should_run.then(|| name.to_owned()));
        } else {
            plan_surplus(view, (name, fit.should_run), pods, &mut plan);
        }
    }
    plan
}

fn plan_surplus(view: &View<'_>, (node, should_run): (&str, bool), pods: &[Arc<Pod>], plan: &mut Plan) {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !is_deleted(pod)) {
        match phase(pod) {
            "Failed" | "Succeeded" => plan.ended.push((node.to_owned(), pod.clone())),
            _ => running.push(pod),
        }
    }
    if !view.allows_surge() {
        plan.delete.extend(running.into_iter().skip(1).cloned());
        return;
    }
    // A pod that is on its way out takes nobody's place.
    if should_run && pods.iter().all(|pod| is_deleted(pod)) {
        plan.create.push(node.to_owned());
    }
    // One of the old and one of the new revision may stand side by side while the old one is ready and the new one is not
    // available.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| view.is_updated(pod));
    plan.delete.extend(
        new.iter().chain(&old).filter(|pod| !is_first(pod, &new) && !is_first(pod, &old)).map(|pod| (**pod).clone()),
    );
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (view.is_available(new) || !is_ready(old))
    {
        plan.delete.push((*old).clone());
    }
}

fn is_first(pod: &Arc<Pod>, pods: &[&Arc<Pod>]) -> bool {
    pods.first().is_some_and(|first| Arc::ptr_eq(first, pod))
}

fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The new and the old pod of a node; `None` where there are more than one of either.
type Pair<'a> = Option<(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>)>;

fn pair<'a>(view: &View<'_>, pods: &'a [Arc<Pod>]) -> Pair<'a> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|pod| !is_deleted(pod)) {
        let slot = if view.is_updated(pod) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// One step of a rolling update. Only to be taken where [`plan_nodes`] has nothing to do.
pub(crate) fn plan_update(view: &View<'_>) -> Plan {
    if view.is_on_delete() {
        return Plan::default();
    }
    let (surge, unavailable) = view.limits();
    if surge > 0 { plan_surging(view, surge) } else { plan_replacing(view, unavailable) }
}

fn plan_replacing(view: &View<'_>, limit: i32) -> Plan {
    let mut unavailable = 0;
    let (mut broken, mut candidates) = (Vec::new(), Vec::new());
    for node in view.nodes.iter().filter(|node| !view.on(node).is_empty() || fit(view.template, node).should_run) {
        match pair(view, view.on(node)) {
            Some((Some(new), None)) => unavailable += i32::from(!view.is_available(new)),
            Some((None, Some(old))) if awaits_image(view.template, node) => {
                unavailable += i32::from(!view.is_available(old));
            }
            Some((None, Some(old))) if view.is_available(old) => candidates.push(old.clone()),
            Some((None, Some(old))) => {
                broken.push(old.clone());
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    let room = usize::try_from(limit - unavailable).unwrap_or_default();
    broken.extend(candidates.into_iter().take(room));
    Plan { delete: broken, ..Plan::default() }
}

fn plan_surging(view: &View<'_>, limit: i32) -> Plan {
    let (mut surging, mut available) = (0, 0);
    let (mut at_once, mut candidates, mut delete, mut unwanted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for node in view.nodes {
        let name = name_of(&node.metadata).to_owned();
        let pair = pair(view, view.on(node));
        let counts = pair.and_then(|(new, old)| old.or(new)).is_some_and(|pod| view.is_available(pod));
        available += i32::from(counts);
        match pair {
            None => surging += 1,
            Some((_, None)) => {}
            Some((None, Some(old))) if !fit(view.template, node).should_run => match view.is_available(old) {
                true => unwanted.push(old.clone()),
                false => delete.push(old.clone()),
            },
            Some((None, Some(_))) if awaits_image(view.template, node) => {}
            Some((None, Some(old))) if view.is_available(old) => candidates.push(name),
            Some((None, Some(_))) => at_once.push(name),
            Some((Some(new), Some(old))) if view.is_available(new) => delete.push(old.clone()),
            Some((Some(_), Some(_))) => surging += 1,
        }
    }
    // Where nodes no longer take pods, old ones go once there are enough elsewhere.
    let spare = usize::try_from(available - view.desired()).unwrap_or_default();
    delete.extend(unwanted.into_iter().take(spare));
    let room = usize::try_from(limit - surging).unwrap_or_default();
    at_once.extend(candidates.into_iter().take(room));
    Plan { create: at_once, delete, ended: Vec::new() }
}

/// The counts of a DaemonSet. `is_observed`: its pods were looked after as it says now.
pub(crate) fn plan_status(view: &View<'_>, set: &DaemonSet, is_observed: bool) -> DaemonSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
    let (mut ready, mut available, mut updated) = (0, 0, 0);
    for node in view.nodes {
        let pods = view.on(node);
        if !fit(view.template, node).should_run {
            misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        let Some(pod) = pods.first() else { continue };
        current += 1;
        ready += i32::from(is_ready(pod));
        available += i32::from(is_ready(pod) && view.is_available(pod));
        updated += i32::from(view.is_updated(pod));
    }
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        updated_number_scheduled: nonzero(updated),
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        observed_generation: if is_observed { set.metadata.generation } else { before.observed_generation },
        ..before
    }
}

#[cfg(test)]
mod tests;
