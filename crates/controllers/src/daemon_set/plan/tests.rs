//! Daemons on nodes, by example.

use super::*;
use crate::pods::fixtures::{on_node, pod, ready, terminating, with_phase};
use crate::taints::fixtures::taint;
use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Container, ContainerImage};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

const HASH: &str = "new";

fn node(name: &str) -> Arc<Node> {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    Arc::new(node)
}

fn tainted(name: &str, key: &str, effect: &str) -> Arc<Node> {
    let mut node = node(name);
    Arc::make_mut(&mut node).spec.get_or_insert_default().taints = Some(vec![taint(key, effect)]);
    node
}

fn daemon(name: &str, node: &str, hash: &str) -> Pod {
    let mut pod = on_node(pod(name), Some(node));
    pod.metadata.labels = Some([(REVISION_HASH.to_owned(), hash.to_owned())].into());
    pod
}

fn spec(surge: i32, unavailable: i32) -> DaemonSetSpec {
    let rolling = RollingUpdateDaemonSet {
        max_surge: Some(IntOrString::Int(surge)),
        max_unavailable: Some(IntOrString::Int(unavailable)),
    };
    let strategy = DaemonSetUpdateStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) };
    DaemonSetSpec { update_strategy: Some(strategy), ..DaemonSetSpec::default() }
}

fn run(spec: &DaemonSetSpec, nodes: &[Arc<Node>], pods: Vec<Pod>, plan: fn(&View<'_>) -> Plan) -> String {
    let template = daemon_template(&spec.template);
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    let view = View::new(spec, &template, nodes, &pods, HASH, Timestamp::UNIX_EPOCH);
    let Plan { create, delete, ended } = plan(&view);
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| name_of(&pod.metadata).to_owned()).collect::<Vec<_>>();
    let ended: Vec<Arc<Pod>> = ended.into_iter().map(|(_, pod)| pod).collect();
    format!("+{} -{} ended {}", create.join(","), names(&delete).join(","), names(&ended).join(","))
}

#[test]
fn nodes_get_one_pod_each() {
    let nodes = [node("a"), node("b")];
    let check = |pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&spec(0, 1), &nodes, pods, plan_nodes), expected);
    };
    check(vec![], "+a,b - ended ");
    check(vec![daemon("1", "a", HASH), daemon("2", "b", HASH)], "+ - ended ");
    check(vec![daemon("1", "a", HASH), daemon("2", "a", HASH)], "+b -2 ended ");
    check(vec![terminating(daemon("1", "a", HASH)), daemon("2", "b", HASH)], "+ - ended ");
    check(vec![with_phase(daemon("1", "a", HASH), "Failed"), daemon("2", "b", HASH)], "+ - ended 1");
    let mut stray = daemon("3", "gone", HASH);
    stray.spec = pod_for(&DaemonSet::default(), &PodTemplateSpec::default(), HASH, "gone").spec;
    check(vec![daemon("1", "a", HASH), daemon("2", "b", HASH), stray], "+ -3 ended ");
}

#[test]
fn taints_keep_daemons_away_or_let_them_stay() {
    let check = |node: Arc<Node>, pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&spec(0, 1), &[node], pods, plan_nodes), expected);
    };
    check(tainted("a", "mine", "NoSchedule"), vec![], "+ - ended ");
    check(tainted("a", "mine", "NoSchedule"), vec![daemon("1", "a", HASH)], "+ - ended ");
    check(tainted("a", "mine", "NoExecute"), vec![daemon("1", "a", HASH)], "+ -1 ended ");
    check(tainted("a", "node.kubernetes.io/unreachable", "NoExecute"), vec![], "+a - ended ");
    check(tainted("a", "node.kubernetes.io/unschedulable", "NoSchedule"), vec![], "+a - ended ");
}

#[test]
fn updates_keep_within_their_limits() {
    let nodes = [node("a"), node("b"), node("c")];
    let old = |name: &str, node: &str| ready(daemon(name, node, "old"), 0);
    let new = |name: &str, node: &str| ready(daemon(name, node, HASH), 0);
    let check = |limits: (i32, i32), pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&spec(limits.0, limits.1), &nodes, pods, plan_update), expected);
    };
    check((0, 1), vec![old("1", "a"), old("2", "b"), old("3", "c")], "+ -1 ended ");
    check((0, 2), vec![old("1", "a"), old("2", "b"), old("3", "c")], "+ -1,2 ended ");
    check((0, 1), vec![daemon("1", "a", HASH), old("2", "b"), old("3", "c")], "+ - ended ");
    check((0, 1), vec![new("1", "a"), old("2", "b"), old("3", "c")], "+ -2 ended ");
    check((0, 1), vec![new("1", "a"), new("2", "b"), new("3", "c")], "+ - ended ");
    // A broken old pod goes even where the limit is used up.
    check((0, 1), vec![daemon("1", "a", HASH), daemon("2", "b", "old"), old("3", "c")], "+ -2 ended ");
    check((1, 0), vec![old("1", "a"), old("2", "b"), old("3", "c")], "+a - ended ");
    check((1, 0), vec![old("1", "a"), daemon("4", "a", HASH), old("2", "b"), old("3", "c")], "+ - ended ");
    check((1, 0), vec![old("1", "a"), new("4", "a"), old("2", "b"), old("3", "c")], "+b -1 ended ");
}

#[test]
fn with_surge_a_node_is_never_without() {
    let nodes = [node("a")];
    let old = ready(daemon("1", "a", "old"), 0);
    let check = |pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&spec(1, 0), &nodes, pods, plan_nodes), expected);
    };
    check(vec![terminating(old.clone())], "+a - ended ");
    check(vec![old.clone(), daemon("2", "a", HASH)], "+ - ended ");
    // One that does not serve need not be kept.
    check(vec![daemon("1", "a", "old"), daemon("2", "a", HASH)], "+ -1 ended ");
    check(vec![old, ready(daemon("2", "a", HASH), 0)], "+ -1 ended ");
}

#[test]
fn with_surge_pods_leave_nodes_that_take_none_once_there_are_enough_elsewhere() {
    let nodes = [tainted("a", "mine", "NoSchedule"), node("b")];
    let old = |name: &str, node: &str| ready(daemon(name, node, "old"), 0);
    let check = |pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&spec(1, 0), &nodes, pods, plan_update), expected);
    };
    check(vec![daemon("1", "a", "old")], "+ -1 ended ");
    check(vec![old("1", "a"), daemon("2", "b", HASH)], "+ - ended ");
    check(vec![old("1", "a"), ready(daemon("2", "b", HASH), 0)], "+ -1 ended ");
}

#[test]
fn an_update_waits_for_images_that_come_by_hand() {
    let listing = |name: &str, images: &[&str]| {
        let mut node = node(name);
        let images = images
            .iter()
            .map(|image| ContainerImage { names: Some(vec![(*image).to_owned()]), ..ContainerImage::default() });
        Arc::make_mut(&mut node).status.get_or_insert_default().images = Some(images.collect());
        node
    };
    let with_image = |image: &str| {
        let mut spec = spec(0, 1);
        let container = Container { image: Some(image.to_owned()), ..Container::default() };
        spec.template.spec.get_or_insert_default().containers = vec![container];
        spec
    };
    let old = |name: &str, node: &str| ready(daemon(name, node, "old"), 0);
    let nodes = [listing("a", &["localhost/x:1"]), listing("b", &["localhost/x:1", "localhost/x:2"])];
    let check = |image: &str, pods: Vec<Pod>, expected: &str| {
        assert_eq!(run(&with_image(image), &nodes, pods, plan_update), expected, "{image}");
    };
    check("localhost/x:2", vec![old("1", "a"), old("2", "b")], "+ -2 ended ");
    check("localhost/x:2", vec![daemon("1", "a", "old"), old("2", "b")], "+ - ended ");
    check("registry.example/x:2", vec![old("1", "a"), old("2", "b")], "+ -1 ended ");
    check("localhost/x:3", vec![old("1", "a"), old("2", "b")], "+ - ended ");
    assert!(!awaits_image(&with_image("localhost/x:2").template, &node("c")), "a node that lists nothing");
    let full: Vec<String> = (0..LISTED_IMAGES).map(|n| format!("i{n}")).collect();
    let full = listing("d", &full.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!awaits_image(&with_image("localhost/x:2").template, &full), "a full list");
}

#[test]
fn a_pod_is_meant_for_its_node_before_it_is_bound() {
    let mut set = DaemonSet::default();
    set.metadata.annotations = Some([(TEMPLATE_GENERATION.to_owned(), "4".to_owned())].into());
    let pod = pod_for(&set, &PodTemplateSpec::default(), HASH, "a");
    assert_eq!(target_node(&pod), Some("a"));
    let labels = pod.metadata.labels.unwrap();
    assert_eq!((labels[REVISION_HASH].as_str(), labels[GENERATION_LABEL].as_str()), (HASH, "4"));
}

#[test]
fn status_counts_nodes() {
    let spec = spec(0, 1);
    let template = daemon_template(&spec.template);
    let nodes = [node("a"), node("b"), node("c"), tainted("d", "mine", "NoSchedule")];
    let pods = [ready(daemon("1", "a", HASH), 0), daemon("2", "b", "old"), daemon("3", "d", HASH)].map(Arc::new);
    let view = View::new(&spec, &template, &nodes, &pods, HASH, Timestamp::UNIX_EPOCH);
    let mut set = DaemonSet::default();
    set.metadata.generation = Some(3);
    assert_eq!(plan_status(&view, &set, true).observed_generation, Some(3));
    assert_eq!(plan_status(&view, &set, false).observed_generation, None, "not yet looked after as it is now");
    let status = plan_status(&view, &set, true);
    let counts = (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled);
    assert_eq!(counts, (3, 2, 1));
    let counts =
        (status.number_ready, status.updated_number_scheduled, status.number_available, status.number_unavailable);
    assert_eq!(counts, (1, Some(1), Some(1), Some(2)));
}
