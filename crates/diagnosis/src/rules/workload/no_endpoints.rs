//! W6: a Service has no pod behind it, or none with the port that it names.
//!
//! Invariant: only the endpoints that the cluster itself derives from a selector are judged; a Service of a workload that
//! was scaled to zero on purpose is right, unless it is the cluster's DNS, without which no name resolves.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Item};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{is_older_than, list, text};
use crate::rules::{Layer, Rule};

/// Seconds that the first pod of a new Service may take.
const PATIENCE: i64 = 20;
const MANAGER: &str = "endpointslice-controller.k8s.io";

pub(super) const RULE: Rule =
    Rule { id: "W6", title: "a Service has no pod behind it", layer: Layer::Workload, explains: &[], find };

type Slices<'a> = Vec<(usize, &'a Item, &'a Value)>;

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut services: BTreeMap<(&str, &str), Slices<'_>> = BTreeMap::new();
    for slice in evidence.objects("EndpointSlice") {
        let labels = &slice.2["metadata"]["labels"];
        if labels["endpointslice.kubernetes.io/managed-by"] == MANAGER {
            let name = text(&labels["kubernetes.io/service-name"]);
            services.entry((text(&slice.2["metadata"]["namespace"]), name)).or_default().push(slice);
        }
    }
    let found = services.into_iter().filter_map(|((namespace, name), slices)| {
        let subject = Subject { namespace: namespace.to_owned(), ..Subject::new("Service", name) };
        let (index, _, service) = evidence.object(&subject)?;
        judge(evidence, subject, index, service, &slices)
    });
    found.collect()
}

fn judge(evidence: &Evidence, subject: Subject, index: usize, service: &Value, slices: &Slices<'_>) -> Option<Finding> {
    let is_dns = subject.namespace == "kube-system" && subject.name == "kube-dns";
    let has_pods = slices.iter().any(|(_, _, slice)| list(&slice["endpoints"]).next().is_some());
    let has_ports = slices.iter().any(|(_, _, slice)| list(&slice["ports"]).next().is_some());
    let told = match (has_pods, has_ports) {
        (true, true) => return None,
        (true, false) => format!("{subject} has pods, and none of them has the port {}", ports(service)?),
        // Why they wait is the matter of others: before a network is installed, they do so rightly.
        (false, _) if is_dns && has_waiting_pods(evidence, service) => return None,
        (false, _) if is_dns => "no pod of the cluster's DNS is there, so no name resolves".to_owned(),
        (false, _) if is_asleep(evidence, &subject.namespace, &service["spec"]["selector"]) => return None,
        (false, _) => format!("{subject} selects {}, and no pod has that", labels(&service["spec"]["selector"])),
    };
    // Before its first pods are there, a Service is new, not wrong.
    if !has_pods && !is_dns && !is_older_than(service, PATIENCE, evidence.gathered) {
        return None;
    }
    let (first, item, _) = slices.first()?;
    let mut finding =
        Finding::failure(subject.clone(), item, Certainty::Proven, told, vec![index, *first], repair(&subject));
    if !is_dns {
        // Whether anybody calls it is not known.
        finding.severity = Severity::Warning;
    }
    Some(finding)
}

/// Whether pods of a Service are there that have no addresses yet.
fn has_waiting_pods(evidence: &Evidence, service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    evidence.objects("Pod").any(|(_, _, pod)| {
        let labels = &pod["metadata"]["labels"];
        pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            && pod["metadata"]["deletionTimestamp"].is_null()
            && selector.is_some_and(|wanted| wanted.iter().all(|(name, value)| labels[name] == *value))
    })
}

/// The names of target ports; numbers need no pod that knows them.
fn ports(service: &Value) -> Option<String> {
    let names: Vec<&str> = list(&service["spec"]["ports"]).filter_map(|port| port["targetPort"].as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether a workload with such pods is scaled to zero.
fn is_asleep(evidence: &Evidence, namespace: &str, selector: &Value) -> bool {
    ["Deployment", "StatefulSet"].into_iter().flat_map(|kind| evidence.objects(kind)).any(|(_, _, workload)| {
        let own = &workload["spec"]["selector"]["matchLabels"];
        let has = |(name, value): (&String, &Value)| own[name] == *value;
        workload["metadata"]["namespace"] == namespace
            && workload["spec"]["replicas"] == 0
            && selector.as_object().is_some_and(|wanted| wanted.iter().all(has))
    })
}

fn labels(selector: &Value) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name}={}", text(value));
    selector.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(",")
}

fn repair(subject: &Subject) -> Repair {
    let (namespace, name) = (&subject.namespace, &subject.name);
    Repair::of(&[
        (
            "See what it selects, and which ports it leads to",
            &format!("kubectl -n {namespace} describe service {name}"),
        ),
        (
            "See the labels and the ports of the pods that are meant",
            &format!("kubectl -n {namespace} get pods --show-labels"),
        ),
        (
            "Correct the one that is wrong, or bring the pods back",
            &format!("kubectl -n {namespace} edit service {name}"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn service(namespace: &str, name: &str, port: Value) -> Value {
        old(json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": port}]}}))
    }

    fn slice(namespace: &str, name: &str, endpoints: Value, ports: Value) -> Value {
        json!({"kind": "EndpointSlice", "metadata": {"namespace": namespace, "name": format!("{name}-x"), "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": super::MANAGER}},
            "endpoints": endpoints, "ports": ports})
    }

    fn workload(replicas: u64) -> Value {
        json!({"kind": "Deployment", "metadata": {"namespace": "a", "name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}}})
    }

    #[test]
    fn a_selector_that_fits_nothing_is_found_and_one_of_a_sleeping_workload_is_not() {
        let nobody = || [service("a", "web", json!(80)), slice("a", "web", json!([]), json!([]))];
        assert_eq!(found(&RULE, nobody()), ["Service a/web selects app=web, and no pod has that"]);
        assert_eq!(found(&RULE, nobody().into_iter().chain([workload(0)])), [""; 0]);
        assert_eq!(found(&RULE, nobody().into_iter().chain([workload(1)])).len(), 1);
        let mut new = nobody();
        new[0]["metadata"]["creationTimestamp"] = json!(now().to_string());
        assert_eq!(found(&RULE, new), [""; 0]);
        let mut own = nobody();
        own[1]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("me");
        assert_eq!(found(&RULE, own), [""; 0]);
    }

    #[test]
    fn a_port_that_no_pod_has_is_found_and_pods_that_are_not_ready_are_not() {
        let unready = || json!([{"conditions": {"ready": false}}]);
        let named = [service("a", "web", json!("http")), slice("a", "web", unready(), json!([]))];
        assert_eq!(found(&RULE, named), ["Service a/web has pods, and none of them has the port http"]);
        let well = [service("a", "web", json!(80)), slice("a", "web", unready(), json!([{"port": 80}]))];
        assert_eq!(found(&RULE, well), [""; 0]);
    }

    #[test]
    fn the_cluster_s_dns_has_no_reason_to_sleep() {
        let dns = || {
            [
                service("kube-system", "kube-dns", json!(53)),
                slice("kube-system", "kube-dns", Value::Null, Value::Null),
                workload(0),
            ]
        };
        assert_eq!(found(&RULE, dns()), ["no pod of the cluster's DNS is there, so no name resolves"]);
        let pod = |more: Value| {
            let mut pod = json!({"kind": "Pod", "metadata": {"namespace": "kube-system", "name": "coredns-1",
                "labels": {"app": "web"}}, "status": {"phase": "Pending"}});
            pod["metadata"]["deletionTimestamp"] = more;
            pod
        };
        assert_eq!(found(&RULE, dns().into_iter().chain([pod(Value::Null)])), [""; 0]);
        assert_eq!(found(&RULE, dns().into_iter().chain([pod(json!("2026-11-21T00:00:00Z"))])).len(), 1);
    }
}
