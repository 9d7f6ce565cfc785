//! NodeResourcesFit: what a pod asks for must be free; which nodes are liked more the profile says: by default those with
//! more left (LeastAllocated).

mod strategy;

use crate::configuration::FitArgs;
use crate::event::{DEVICE_CLASS, Event, Freed};
use crate::framework::{Cycle, Evaluation, Plugin, Reason, Verdict};
use crate::node_info::NodeInfo;
use crate::plugins::{Extended, extended_names};
use crate::pod_info::PodInfo;
use crate::resources::Resources;
use strategy::Strategy;

#[derive(Default)]
pub(crate) struct NodeResourcesFit {
    args: FitArgs,
    strategy: Strategy,
}

impl NodeResourcesFit {
    /// The plugin; resources that extenders care for are `ignored`.
    pub(crate) fn new(mut args: FitArgs, ignored: &[String]) -> Self {
        args.ignored_resources.extend_from_slice(ignored);
        Self { strategy: Strategy::new(&args.scoring_strategy), args }
    }

    fn is_ignored(&self, resource: &str) -> bool {
        let group = resource.split_once('/').map(|(group, _)| group);
        self.args.ignored_resources.iter().any(|ignored| ignored == resource)
            || self.args.ignored_resource_groups.iter().any(|ignored| Some(ignored.as_str()) == group)
    }
}

struct Asked<'a> {
    pod: &'a PodInfo,
    strategy: &'a Strategy,
    /// What the pod asks of resources that are neither CPU nor memory, and not ignored; with whether a device class stands
    /// behind the resource on nodes that have none of it.
    extended: Vec<(&'a str, i64, bool)>,
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let asked = cycle.pod.requests.extended.iter().filter(|(name, amount)| **amount > 0 && !self.is_ignored(name));
        let by_classes = cycle.surroundings.devices.as_ref().and_then(|facts| facts.extended.as_ref());
        let by_classes = by_classes.map(Extended::names).unwrap_or_default();
        let extended = asked.map(|(name, amount)| (name.as_str(), *amount, by_classes.contains(name))).collect();
        Some(Box::new(Asked { pod: cycle.pod, strategy: &self.strategy, extended }))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let asked = &pod.requests;
        match event {
            Event::AssignedPodDelete(_, freed) => freed.is_none_or(|freed| self.could_be_room(pod, &freed)),
            Event::AssignedPodUpdate { old, new } => asks_for_more_than(asked, &new.requests, &old.requests),
            Event::NodeAdd(node) => self.could_hold(pod, &node.allocatable),
            Event::NodeUpdate { old, new } => {
                let before = Resources::from_list(old.status.as_ref().and_then(|status| status.allocatable.as_ref()));
                let grew = new.allocatable.pods > before.pods || asks_for_more_than(asked, &before, &new.allocatable);
                grew && self.could_hold(pod, &new.allocatable)
            }
            Event::Object(change) => change.resource == DEVICE_CLASS && extended_names(pod).next().is_some(),
            _ => false,
        }
    }
}

impl NodeResourcesFit {
    /// Whether a pod has room on a node that another one has left, if those went who may have to go for it. Whoever is
    /// promised the node is not woken by this but by the last of its victims.
    fn could_be_room(&self, pod: &PodInfo, freed: &Freed<'_>) -> bool {
        let mut used = Resources::default();
        freed.keeps(pod.priority).for_each(|other| used.add(&other.requests));
        let have = &freed.node.allocatable;
        let has_room = |(name, amount): (&str, i64)| {
            let (have, used) = (have.amount(name), used.amount(name));
            amount <= have - used || amount == 0 || self.is_ignored(name) || (have == 0 && may_be_claimed(pod, name))
        };
        used.pods < have.pods && pod.requests.named().all(has_room)
    }

    fn could_hold(&self, pod: &PodInfo, have: &Resources) -> bool {
        let has = |(name, amount): (&str, i64)| {
            let have = have.amount(name);
            amount <= have || amount == 0 || self.is_ignored(name) || (have == 0 && may_be_claimed(pod, name))
        };
        have.pods > 0 && pod.requests.named().all(has)
    }
}

/// Whether a device class may stand behind a resource: which ones there are is not known here.
fn may_be_claimed(pod: &PodInfo, resource: &str) -> bool {
    extended_names(pod).any(|name| name == resource)
}

/// Whether one of the resources that are asked for is less in `less` than in `more`.
fn asks_for_more_than(asked: &Resources, less: &Resources, more: &Resources) -> bool {
    asked.named().any(|(name, amount)| amount > 0 && less.amount(name) < more.amount(name))
}

impl Evaluation for Asked<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let (asked, used, have) = (&self.pod.requests, &node.requested, &node.allocatable);
        let mut lacking: Vec<Reason> = Vec::new();
        let mut is_hopeless = false;
        if used.pods + 1 > have.pods {
            lacking.push("Too many pods".into());
        }
        for (reason, asked, used, have) in [
            ("Insufficient cpu", asked.milli_cpu, used.milli_cpu, have.milli_cpu),
            ("Insufficient memory", asked.memory, used.memory, have.memory),
            ("Insufficient ephemeral-storage", asked.ephemeral_storage, used.ephemeral_storage, have.ephemeral_storage),
        ] {
            if asked > 0 && asked > have - used {
                lacking.push(reason.into());
                is_hopeless |= asked > have;
            }
        }
        for (name, amount, by_class) in &self.extended {
            let have = have.amount(name);
            if *by_class && have == 0 {
                continue;
            }
            if *amount > have - used.amount(name) {
                lacking.push(format!("Insufficient {name}").into());
                is_hopeless |= *amount > have;
            }
        }
        match (lacking.is_empty(), is_hopeless) {
            (true, _) => Verdict::Fits,
            (false, true) => Verdict::Unresolvable(lacking.into()),
            (false, false) => Verdict::Unschedulable(lacking.into()),
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        Some(self.strategy.score(&self.pod.score_requests, &node.score_requested, &node.allocatable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nominated::Nominated;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::json;

    fn asking(name: &str, cpu: &str, memory: &str) -> PodInfo {
        pod(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}))
    }

    #[test]
    fn what_lacks_is_named() {
        let allocatable = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}});
        let nodes = [node(allocatable.clone(), vec![asking("a", "600m", "512Mi")])];
        for (cpu, memory, reasons) in [
            ("400m", "512Mi", vec![]),
            ("401m", "512Mi", vec!["Insufficient cpu"]),
            ("500m", "1Gi", vec!["Insufficient cpu", "Insufficient memory"]),
            ("0", "0", vec![]),
        ] {
            let verdict = filter(&NodeResourcesFit::default(), &asking("new", cpu, memory), &nodes).remove(0);
            assert_eq!(verdict.reasons(), reasons, "{cpu} {memory}");
        }
        let full = [node(allocatable, vec![asking("a", "0", "0"), asking("b", "0", "0")])];
        assert_eq!(filter(&NodeResourcesFit::default(), &asking("c", "0", "0"), &full)[0].reasons(), ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_is_liked_more() {
        let allocatable = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}});
        let nodes = [node(allocatable.clone(), vec![asking("a", "500m", "512Mi")]), node(allocatable, vec![])];
        let scores = score(&NodeResourcesFit::default(), &asking("new", "250m", "256Mi"), &nodes);
        assert_eq!(scores, [25, 75]);
    }

    fn scored(strategy: serde_json::Value, cpu: &str, used: [&str; 2]) -> Vec<i64> {
        let allocatable = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}});
        let nodes = used.map(|cpu| node(allocatable.clone(), vec![asking("a", cpu, "0")]));
        let args = serde_json::from_value(json!({"scoringStrategy": strategy})).unwrap();
        score(&NodeResourcesFit::new(args, &[]), &asking("new", cpu, "0"), &nodes)
    }

    #[test]
    fn strategies_say_what_is_liked() {
        let cpu = json!([{"name": "cpu", "weight": 1}]);
        let by = |kind: &str| json!({"type": kind, "resources": cpu});
        assert_eq!(scored(by("LeastAllocated"), "200m", ["700m", "100m"]), [10, 70]);
        assert_eq!(scored(by("MostAllocated"), "200m", ["700m", "100m"]), [90, 30]);
        let mut ratio = by("RequestedToCapacityRatio");
        ratio["requestedToCapacityRatio"] = json!({"shape": [
            {"utilization": 20, "score": 0}, {"utilization": 60, "score": 10}, {"utilization": 100, "score": 2}]});
        assert_eq!(scored(ratio, "200m", ["300m", "700m"]), [75, 40]);
    }

    #[test]
    fn what_no_pod_could_leave_room_for_is_unresolvable() {
        let nodes = [node(json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}}), vec![])];
        let verdict = filter(&NodeResourcesFit::default(), &asking("new", "2", "0"), &nodes).remove(0);
        assert_eq!(verdict, Verdict::unresolvable("Insufficient cpu"));
        let mut gpu = asking("gpu", "0", "0");
        gpu.requests.extended.insert("example.org/gpu".to_owned(), 1);
        assert_eq!(filter(&NodeResourcesFit::default(), &gpu, &nodes)[0].reasons(), ["Insufficient example.org/gpu"]);
        for args in
            [json!({"ignoredResources": ["example.org/gpu"]}), json!({"ignoredResourceGroups": ["example.org"]})]
        {
            let plugin = NodeResourcesFit::new(serde_json::from_value(args).unwrap(), &[]);
            assert!(filter(&plugin, &gpu, &nodes)[0].fits());
        }
        let plugin = NodeResourcesFit::new(FitArgs::default(), &["example.org/gpu".to_owned()]);
        assert!(filter(&plugin, &gpu, &nodes)[0].fits());
    }

    #[test]
    fn a_departure_helps_where_there_is_room_besides_what_is_promised() {
        let important = |name: &str, cpu: &str, priority: i32| {
            pod(json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [
                {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
        };
        let at = |pods: Vec<PodInfo>| {
            node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "9"}}}), pods)
        };
        let (gone, waiting) = (important("gone", "1", 0), important("new", "3", 5));
        let check = |node: &NodeInfo, promised: Option<&PodInfo>, expected: bool| {
            let mut nominated = Nominated::default();
            if let Some(promised) = promised {
                nominated.add(std::sync::Arc::new(promised.clone()), "n");
            }
            let freed = Some(Freed { node, nominated: &nominated });
            assert_eq!(
                NodeResourcesFit::default().may_help(&waiting, &Event::AssignedPodDelete(&gone, freed)),
                expected
            );
        };
        check(&at(vec![important("same", "1", 5)]), None, true);
        check(&at(vec![important("same", "2", 5)]), None, false);
        check(&at(vec![important("lower", "2", 4)]), None, true);
        check(&at(vec![]), Some(&important("other", "2", 5)), false);
        check(&at(vec![]), Some(&important("lower", "2", 4)), true);
    }

    #[test]
    fn only_room_that_is_lacking_may_help() {
        let (plugin, waiting) = (NodeResourcesFit::default(), asking("new", "2", "0"));
        let with =
            |cpu: &str| node(json!({"status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "9"}}}), vec![]);
        let (small, large) = (with("1"), with("4"));
        assert!(plugin.may_help(&waiting, &Event::NodeAdd(&large)));
        assert!(!plugin.may_help(&waiting, &Event::NodeAdd(&small)));
        assert!(plugin.may_help(&waiting, &Event::NodeUpdate { old: &small.node, new: &large }));
        assert!(!plugin.may_help(&waiting, &Event::NodeUpdate { old: &large.node, new: &large }), "a heartbeat");
        let (before, after) = (asking("a", "2", "1Gi"), asking("a", "1", "1Gi"));
        assert!(plugin.may_help(&waiting, &Event::AssignedPodUpdate { old: &before, new: &after }));
        assert!(!plugin.may_help(&waiting, &Event::AssignedPodUpdate { old: &after, new: &before }));
        assert!(plugin.may_help(&waiting, &Event::AssignedPodDelete(&before, None)));
        assert!(!plugin.may_help(&waiting, &Event::AssignedPodAdd(&before)));
    }
}
