//! Tables of resizes: what is in force, what was granted, and what follows.

use k8s_openapi::api::core::v1::{ContainerResizePolicy, PodSpec};

use super::*;
use crate::runtime_state::ContainerPhase::{Exited, Running};
use crate::runtime_state::fixtures::{container, runtime, sandbox};

/// `cpu request/cpu limit/memory request/memory limit`, a dash for none.
fn resources(text: &str) -> ResourceRequirements {
    let parts: Vec<&str> = text.split('/').collect();
    let list = |cpu: &str, memory: &str| {
        let entries = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| *amount != "-");
        let list: BTreeMap<_, _> = entries.map(|(k, v)| (k.to_owned(), ApiQuantity(v.to_owned()))).collect();
        Some(list).filter(|list| !list.is_empty())
    };
    ResourceRequirements { requests: list(parts[0], parts[2]), limits: list(parts[1], parts[3]), claims: None }
}

fn app(name: &str, text: &str, restart_for: &[&str]) -> Container {
    let policy = |resource: &&str| ContainerResizePolicy {
        resource_name: (*resource).to_owned(),
        restart_policy: "RestartContainer".to_owned(),
    };
    Container {
        name: name.to_owned(),
        resources: Some(resources(text)),
        resize_policy: Some(restart_for.iter().map(policy).collect()),
        ..Container::default()
    }
}

fn pod(containers: Vec<Container>) -> Pod {
    let mut pod = Pod { spec: Some(PodSpec { containers, ..PodSpec::default() }), ..Pod::default() };
    pod.metadata.uid = Some("u".to_owned());
    pod
}

fn in_force(entries: &[(&str, &str)]) -> PodResources {
    let containers = entries.iter().map(|(name, text)| ((*name).to_owned(), resources(text))).collect();
    PodResources { pod: None, containers }
}

#[test]
fn what_changes_and_how() {
    let check = |before: &str, after: &str, restart_for: &[&str], expected: (usize, usize, usize)| {
        let running = runtime(vec![sandbox(0, true)], vec![container("a", Running, 0)]);
        let plan = plan_resize(&pod(vec![app("a", after, restart_for)]), &running, &in_force(&[("a", before)]));
        let got = (plan.restarts.len(), plan.memory.len(), plan.cpu.len());
        assert_eq!(got, expected, "{before} -> {after} {restart_for:?}");
    };
    let before = "100m/200m/32Mi/64Mi";
    check(before, before, &["cpu", "memory"], (0, 0, 0));
    check(before, "0.1/0.2/32Mi/65536Ki", &[], (0, 0, 0));
    check(before, "150m/200m/32Mi/64Mi", &[], (0, 0, 1));
    check(before, "100m/300m/32Mi/64Mi", &["memory"], (0, 0, 1));
    check(before, "100m/300m/32Mi/64Mi", &["cpu"], (1, 0, 0));
    check(before, "100m/200m/48Mi/64Mi", &["memory"], (1, 0, 0));
    check(before, "150m/250m/48Mi/96Mi", &[], (0, 1, 1));
    check("1m/5m/-/-", "2m/10m/-/-", &[], (0, 0, 0));
}

#[test]
fn only_running_containers_with_a_known_state_change() {
    let wanted = pod(vec![app("a", "2/-/-/-", &[])]);
    let ended = runtime(vec![sandbox(0, true)], vec![container("a", Exited, 1)]);
    assert!(plan_resize(&wanted, &ended, &in_force(&[("a", "1/-/-/-")])).is_empty());
    let running = runtime(vec![sandbox(0, true)], vec![container("a", Running, 0)]);
    assert!(plan_resize(&wanted, &running, &in_force(&[])).is_empty());
}

#[test]
fn decreases_come_first() {
    let wanted = pod(vec![app("a", "2/2/-/-", &[]), app("b", "1/1/-/-", &[]), app("c", "3/3/-/-", &[])]);
    let records = ["a", "b", "c"].map(|name| container(name, Running, 0)).to_vec();
    let before = in_force(&[("a", "1/1/-/-"), ("b", "2/2/-/-"), ("c", "4/4/-/-")]);
    let plan = plan_resize(&wanted, &runtime(vec![sandbox(0, true)], records), &before);
    let names: Vec<&str> = plan.cpu.iter().map(|update| update.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "a"]);
}

#[test]
fn resizes_are_granted_deferred_or_infeasible() {
    let room = Room { max_pods: 10, cpu_millis: 4000, memory: 1 << 30, ephemeral_storage: 0, ..Room::default() };
    let other = pod(vec![app("x", "2/-/-/-", &[])]);
    let check = |wanted: &str, expected: Option<(&str, &str)>| {
        let refusal = judge(&pod(vec![app("a", wanted, &[])]), &[&other], &room).err();
        let got = refusal.as_ref().map(|refusal| (refusal.reason, refusal.message.as_str()));
        assert_eq!(got, expected);
    };
    check("2/-/-/-", None);
    let text = "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000";
    check("3/-/-/-", Some(("Deferred", text)));
    let text = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000";
    check("5/-/-/-", Some(("Infeasible", text)));
    let text = "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824";
    check("5/-/2Gi/-", Some(("Infeasible", text)));
}

#[test]
fn events_name_all_resources() {
    let pod = pod(vec![app("a", "100m/-/-/-", &[])]);
    assert_eq!(
        event_text("Pod resize started", &pod, Some(3), ""),
        r#"Pod resize started: {"containers":[{"name":"a","resources":{"requests":{"cpu":"100m"}}}],"generation":3}"#
    );
    assert!(event_text("Pod resize error", &pod, Some(3), "no").ends_with(r#""generation":3,"error":"no"}"#));
}
