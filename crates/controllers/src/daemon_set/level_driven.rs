//! A DaemonSet after any history: one pod of its template on each node that should have one, none where none may stay; and
//! on the way an update never took more than it may.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::plan::{View, daemon_template, fit, plan_nodes, plan_status, plan_update, pod_for, target_node};
use crate::histories::{Cached, history};
use crate::history::REVISION_HASH;
use crate::pods::fixtures::{created, on_node, ready, terminating, with_phase};
use crate::pods::{is_ready, is_terminal, name_of, node_name};
use crate::taints::fixtures::taint;

const NODES: u16 = 6;

struct World {
    set: DaemonSet,
    /// The set's template, and those of the pods, are this number.
    template: u16,
    seen_template: u16,
    nodes: BTreeMap<String, Arc<Node>>,
    seen_nodes: Vec<Arc<Node>>,
    pods: Cached<Pod>,
    made: i64,
}

impl World {
    fn new(surge: i32) -> Self {
        let rolling = RollingUpdateDaemonSet {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(i32::from(surge == 0) * 2)),
        };
        let strategy =
            DaemonSetUpdateStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) };
        let spec = DaemonSetSpec { update_strategy: Some(strategy), ..DaemonSetSpec::default() };
        let mut set = DaemonSet { spec: Some(spec), ..DaemonSet::default() };
        set.metadata.name = Some("agent".to_owned());
        let (nodes, seen_nodes, pods) = (BTreeMap::new(), Vec::new(), Cached::new());
        let mut world = Self { set, template: 0, seen_template: 0, nodes, seen_nodes, pods, made: 0 };
        (0..3).for_each(|number| world.change_node(number, &[]));
        world
    }

    fn change_node(&mut self, number: u16, effects: &[&str]) {
        let mut node = Node::default();
        let name = format!("node-{}", number % NODES);
        node.metadata.name = Some(name.clone());
        let taints = effects.iter().map(|effect| taint("example.com/own", effect)).collect();
        node.spec.get_or_insert_default().taints = Some(taints);
        self.nodes.insert(name, Arc::new(node));
    }

    fn happen(&mut self, (what, number): (u8, u16)) {
        let one = self.pods.nth(number);
        match what {
            0 | 1 => self.pods.hear_one(what == 0, number),
            2 => self.hear_nodes_and_set(),
            3 => self.pods.change(one.as_ref(), |pod| run(pod, &self.nodes)),
            4 => self
                .pods
                .change(one.as_ref(), |pod| with_phase(pod, if number % 2 == 0 { "Failed" } else { "Succeeded" })),
            5 => self.pods.change(one.as_ref(), terminating),
            6 => self.pods.real.retain(|_, pod| pod.metadata.deletion_timestamp.is_none()),
            7 => self.template = number % 3,
            8 => self.change_node(number, &[]),
            9 => self.change_node(number, &["NoSchedule"]),
            10 => self.change_node(number, &["NoExecute"]),
            _ => drop(self.nodes.remove(&format!("node-{}", number % NODES))),
        }
    }

    fn hear_nodes_and_set(&mut self) {
        self.seen_nodes = self.nodes.values().cloned().collect();
        self.seen_template = self.template;
    }

    /// What kubelets and the pod collector do in the end.
    fn settle_pods(&mut self) {
        let nodes = &self.nodes;
        self.pods.real.retain(|_, pod| {
            let is_lost = node_name(pod).is_some_and(|node| !nodes.contains_key(node));
            pod.metadata.deletion_timestamp.is_none() && !is_lost
        });
        for pod in self.pods.real.values_mut() {
            *pod = run(pod.clone(), nodes);
        }
        self.pods.hear_everything();
        self.hear_nodes_and_set();
    }

    /// One pass, of which only so many effects come about; whether it had anything to do.
    fn look(&mut self, effects: usize) -> Result<bool, TestCaseError> {
        if !self.pods.shows_writes() {
            return Ok(true);
        }
        let set = self.set.clone();
        let spec = set.spec.as_ref().unwrap();
        let (template, hash) = (daemon_template(&spec.template), self.seen_template.to_string());
        let (nodes, now) = (self.seen_nodes.clone(), Timestamp::from_second(self.made).unwrap());
        let pods: Vec<Arc<Pod>> = self.pods.seen.values().cloned().map(Arc::new).collect();
        let view = View::new(spec, &template, &nodes, &pods, &hash, now);
        let mut plan = plan_nodes(&view);
        plan.delete.extend(std::mem::take(&mut plan.ended).into_iter().map(|(_, pod)| pod));
        if plan.create.is_empty() && plan.delete.is_empty() {
            plan = plan_update(&view);
            self.check_update(&view, &plan.delete, plan.create.len())?;
        }
        for pod in plan.delete.iter().take(effects) {
            if self.pods.ask_to_delete(&**pod) {
                self.pods.change(pod.metadata.name.as_ref(), terminating);
            }
        }
        for node in plan.create.iter().take(effects.saturating_sub(plan.delete.len())) {
            self.made += 1;
            let mut made = created(with_phase(pod_for(&set, &template, &hash, node), "Pending"), self.made);
            made.metadata.name = Some(format!("agent-{:04}", self.made));
            made.metadata.uid = made.metadata.name.clone();
            prop_assert!(self.pods.create(made));
        }
        Ok(!plan.create.is_empty() || !plan.delete.is_empty())
    }

    /// An update takes pods that serve only as far as it may, and only old ones.
    fn check_update(&self, view: &View<'_>, delete: &[Arc<Pod>], create: usize) -> Result<(), TestCaseError> {
        prop_assert!(delete.iter().all(|pod| !view.is_updated(pod)), "an updated pod goes");
        let rolling = view.spec.update_strategy.as_ref().unwrap().rolling_update.clone().unwrap();
        let limit = |value: Option<IntOrString>| match value {
            Some(IntOrString::Int(number)) => usize::try_from(number).unwrap(),
            _ => unreachable!(),
        };
        let (surge, unavailable) = (limit(rolling.max_surge), limit(rolling.max_unavailable));
        let serves =
            |pods: &[Arc<Pod>]| pods.iter().any(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
        let served = view.pods.values().filter(|pods| serves(pods)).count();
        let left = view.pods.values().filter(|pods| {
            let kept: Vec<Arc<Pod>> =
                pods.iter().filter(|pod| !delete.iter().any(|gone| Arc::ptr_eq(gone, pod))).cloned().collect();
            serves(&kept)
        });
        // What serves beside the nodes that take pods may go once these do without it.
        let wanted = usize::try_from(view.desired()).unwrap().min(served);
        prop_assert!(wanted <= left.count() + unavailable, "{unavailable} may be unavailable");
        let broken = view.pods.values().filter(|pods| !pods.is_empty() && !serves(pods)).count();
        prop_assert!(create <= surge + broken, "{create} pods are made where {surge} may");
        Ok(())
    }
}

/// Bound to the node that it is meant for, where that is there, and ready.
fn run(pod: Pod, nodes: &BTreeMap<String, Arc<Node>>) -> Pod {
    let node = target_node(&pod).filter(|node| nodes.contains_key(*node)).map(str::to_owned);
    match node {
        Some(node) if !is_terminal(&pod) && !is_ready(&pod) => {
            ready(with_phase(on_node(pod, Some(&node)), "Running"), 0)
        }
        _ => pod,
    }
}

fn check(surge: i32, happened: &[(u8, u16)], looks: &[usize]) -> Result<(), TestCaseError> {
    let mut world = World::new(surge);
    for (index, event) in happened.iter().enumerate() {
        world.happen(*event);
        for _ in looks.iter().filter(|look| **look == index) {
            world.look(usize::from(event.1 % 7))?;
        }
    }
    for round in 0.. {
        prop_assert!(round < 60, "no end: {:?}", world.pods.real);
        world.settle_pods();
        if !world.look(usize::MAX)? {
            break;
        }
    }
    let set = world.set.clone();
    let spec = set.spec.as_ref().unwrap();
    let (template, hash) = (daemon_template(&spec.template), world.template.to_string());
    let mut should = 0;
    for node in world.nodes.values() {
        let fit = fit(&template, node);
        should += i32::from(fit.should_run);
        let name = name_of(&node.metadata);
        let pods: Vec<&Pod> = world.pods.real.values().filter(|pod| target_node(pod) == Some(name)).collect();
        let wanted = if fit.should_run { 1..=1 } else { 0..=usize::from(fit.may_continue) };
        prop_assert!(wanted.contains(&pods.len()), "{} pods on {name}, where {fit:?}", pods.len());
        let hash_of = |pod: &&Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_HASH)).cloned();
        prop_assert!(pods.iter().all(|pod| is_ready(pod) && hash_of(pod).as_ref() == Some(&hash)));
    }
    let pods: Vec<Arc<Pod>> = world.pods.seen.values().cloned().map(Arc::new).collect();
    prop_assert!(pods.iter().all(|pod| target_node(pod).is_some_and(|node| world.nodes.contains_key(node))));
    let view = View::new(spec, &template, &world.seen_nodes, &pods, &hash, Timestamp::UNIX_EPOCH);
    let status = plan_status(&view, &set, true);
    let counts = [status.desired_number_scheduled, status.current_number_scheduled, status.number_ready];
    prop_assert_eq!(counts, [should; 3]);
    prop_assert_eq!(status.updated_number_scheduled.unwrap_or_default(), should);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_was_heard_each_node_has_its_pod((happened, looks) in history(12, 60)) {
        check(0, &happened, &looks)?;
    }

    #[test]
    fn whatever_was_heard_each_node_has_its_pod_after_a_surge((happened, looks) in history(12, 60), surge in 1..3) {
        check(surge, &happened, &looks)?;
    }
}
