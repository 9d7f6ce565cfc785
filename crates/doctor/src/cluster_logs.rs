//! The last words of the cluster's own pods, through its API: of the control plane always, of others where they do not do
//! well. Pods in people's own namespaces are not read. One line of each other machine tells whether the API server reaches
//! its kubelet.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Request;
use kedge_client::Client;
use kedge_diagnosis::{Evidence, Fact, Item, LogFact, LogSource, NetworkFact, Place, Unseen};
use serde_json::Value;

use crate::node::is_the_clusters;

const LINES: u32 = 300;
/// Logs that are asked for at all; more would tell the same.
const MOST: usize = 40;
/// A machine that is down answers nobody.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a log may have in bytes.
const MOST_BYTES: u32 = 128 << 10;
/// Machines of which a line is asked for only to reach them.
const MOST_MACHINES: usize = 20;
const KUBELET_PORT: u16 = 10250;

/// A log to ask for.
#[derive(Clone)]
struct Wanted {
    namespace: String,
    pod: String,
    container: String,
    node: String,
    previous: bool,
}

/// Reads them, all at once. `evidence` has the pods and the nodes.
pub(crate) async fn read(client: &Client, evidence: &mut Evidence) {
    let ready = ready_nodes(evidence);
    let wanted: Vec<Wanted> = pods(evidence).filter(|pod| is_wanted(pod)).flat_map(logs_of).take(MOST).collect();
    let reached = touches(evidence, &ready, &wanted);
    let call = |(wanted, lines): (Wanted, u32)| {
        let client = client.clone();
        tokio::spawn(async move { (ask(&client, &wanted, lines).await, wanted, lines) })
    };
    let all = wanted.into_iter().map(|wanted| (wanted, LINES)).chain(reached.into_iter().map(|wanted| (wanted, 1)));
    let calls: Vec<_> = all.map(call).collect();
    for call in calls {
        match call.await {
            Ok((Ok(text), wanted, LINES)) => evidence.items.extend(text.lines().map(|line| item(&wanted, line))),
            Ok((Err(why), wanted, lines)) => {
                if is_cut_off(&why) && ready.contains(&wanted.node) {
                    evidence.items.push(unreached(&wanted, &why));
                }
                if lines == LINES {
                    evidence.unseen.push(Unseen { what: format!("log of {}/{}", wanted.namespace, wanted.pod), why });
                }
            }
            Ok(_) => {}
            Err(error) => evidence.unseen.push(Unseen { what: "logs of pods".to_owned(), why: error.to_string() }),
        }
    }
}

fn pods(evidence: &Evidence) -> impl Iterator<Item = &Value> {
    objects(evidence, "Pod")
}

fn objects<'a>(evidence: &'a Evidence, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    evidence.items.iter().filter_map(move |item| match &item.fact {
        Fact::Object(object) if object["kind"] == kind => Some(object),
        _ => None,
    })
}

/// Of a machine that is not ready, its own trouble tells more.
fn ready_nodes(evidence: &Evidence) -> BTreeSet<String> {
    let is_ready = |node: &&Value| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let ready = objects(evidence, "Node").filter(is_ready);
    ready.filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// One log of each machine that no wanted one is of: that its kubelet answers is all that is asked.
fn touches(evidence: &Evidence, ready: &BTreeSet<String>, wanted: &[Wanted]) -> Vec<Wanted> {
    let mut known: BTreeSet<String> = wanted.iter().map(|wanted| wanted.node.clone()).collect();
    let mut touches = Vec::new();
    for pod in pods(evidence).filter(|pod| is_the_clusters(pod["metadata"]["namespace"].as_str().unwrap_or_default())) {
        let Some(log) = logs_of(pod).into_iter().find(|log| !log.previous && ready.contains(&log.node)) else {
            continue;
        };
        if touches.len() < MOST_MACHINES && known.insert(log.node.clone()) {
            touches.push(log);
        }
    }
    touches
}

/// Whether the API server says that it cannot reach the kubelet at all. One that refuses is there.
fn is_cut_off(why: &str) -> bool {
    let why = why.to_lowercase();
    why.contains(&format!(":{KUBELET_PORT}"))
        && ["no route to host", "i/o timeout", "connection timed out", "network is unreachable"]
            .iter()
            .any(|error| why.contains(error))
}

fn unreached(wanted: &Wanted, why: &str) -> Item {
    let Wanted { namespace, pod, node, .. } = wanted;
    let fact = NetworkFact::Probe {
        to: node.clone(),
        protocol: "tcp".to_owned(),
        port: KUBELET_PORT,
        error: Some(why.to_owned()),
    };
    let origin = format!("kubectl -n {namespace} logs {pod}");
    Item { time: None, place: Place::Cluster, origin, fact: Fact::Network(fact) }
}

/// Whether a pod is a part of the cluster that may have something to say.
fn is_wanted(pod: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if !is_the_clusters(&text(&pod["metadata"]["namespace"])) || text(&pod["spec"]["nodeName"]).is_empty() {
        return false;
    }
    let ready = statuses(pod).all(|status| status["ready"] == true);
    pod["metadata"]["labels"]["tier"] == "control-plane" || !ready
}

/// Its containers that have run: of one that was started again, the run before as well.
fn logs_of(pod: &Value) -> Vec<Wanted> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut wanted = Vec::new();
    for status in statuses(pod) {
        let log = |previous| Wanted {
            namespace: text(&pod["metadata"]["namespace"]),
            pod: text(&pod["metadata"]["name"]),
            container: text(&status["name"]),
            node: text(&pod["spec"]["nodeName"]),
            previous,
        };
        let has_run = status["state"]["running"].is_object() || status["state"]["terminated"].is_object();
        let has_run_before = status["lastState"]["terminated"].is_object();
        wanted.extend(has_run_before.then(|| log(true)));
        wanted.extend(has_run.then(|| log(false)));
    }
    wanted
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"].as_array().into_iter().flatten()
}

async fn ask(client: &Client, wanted: &Wanted, lines: u32) -> Result<String, String> {
    let Wanted { namespace, pod, container, previous, .. } = wanted;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={lines}&limitBytes={MOST_BYTES}&timestamps=true&previous={previous}"
    );
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, client.request_text(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn item(wanted: &Wanted, line: &str) -> Item {
    let Wanted { namespace, pod, container, node, previous } = wanted;
    let (time, text) = match line.split_once(' ').map(|(time, text)| (time.parse(), text)) {
        Some((Ok(time), text)) => (Some(time), text),
        _ => (None, line),
    };
    let source = LogSource::Container {
        namespace: namespace.clone(),
        pod: pod.clone(),
        container: container.clone(),
        previous: *previous,
    };
    let before = if *previous { " --previous" } else { "" };
    let origin = format!("kubectl -n {namespace} logs {pod} -c {container}{before}");
    let fact = Fact::Log(LogFact { source, text: kedge_bundle::redact_text(text) });
    Item { time, place: Place::Node(node.clone()), origin, fact }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, tier: &str, status: &Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": "p", "labels": {"tier": tier}}, "spec": {"nodeName": "one"},
            "status": {"containerStatuses": [status]}})
    }

    #[test]
    fn only_parts_of_the_cluster_that_may_say_something_are_asked() {
        let well = json!({"name": "c", "ready": true, "state": {"running": {}}});
        let ill = json!({"name": "c", "ready": false, "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}});
        let wanted =
            |pod: &Value| is_wanted(pod).then(|| logs_of(pod).iter().map(|log| log.previous).collect::<Vec<_>>());
        assert_eq!(wanted(&pod("kube-system", "control-plane", &well)), Some(vec![false]));
        assert_eq!(wanted(&pod("kube-system", "", &well)), None);
        assert_eq!(wanted(&pod("kube-system", "", &ill)), Some(vec![true]));
        assert_eq!(wanted(&pod("default", "", &ill)), None);
    }

    #[test]
    fn lines_have_their_time_and_place() {
        let pod = pod("kube-system", "control-plane", &json!({"name": "c", "state": {"running": {}}}));
        let item = item(&logs_of(&pod)[0], "2026-07-22T10:00:00.5Z E0722 failed");
        assert_eq!((item.time.is_some(), item.place), (true, Place::Node("one".to_owned())));
        assert_eq!(item.fact.to_string(), "E0722 failed");
    }

    #[test]
    fn each_machine_is_reached_once_and_only_a_cut_one_is_told_of() {
        let of = |name: &str, node: &str, tier: &str| {
            let mut pod = pod("kube-system", tier, &json!({"name": "c", "ready": true, "state": {"running": {}}}));
            pod["kind"] = json!("Pod");
            pod["metadata"]["name"] = json!(name);
            pod["spec"]["nodeName"] = json!(node);
            pod
        };
        let node = |name: &str, ready: &str| json!({"kind": "Node", "metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let objects = [
            node("one", "True"),
            node("two", "True"),
            node("off", "Unknown"),
            of("api", "one", "control-plane"),
            of("proxy-1", "one", ""),
            of("proxy-2", "two", ""),
            of("dns-2", "two", ""),
            of("proxy-3", "off", ""),
        ];
        let item =
            |object| Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(object) };
        let evidence = Evidence { items: objects.into_iter().map(item).collect(), ..Evidence::default() };
        let wanted: Vec<Wanted> = pods(&evidence).filter(|pod| is_wanted(pod)).flat_map(logs_of).collect();
        let touched = touches(&evidence, &ready_nodes(&evidence), &wanted);
        assert_eq!(touched.iter().map(|log| log.pod.as_str()).collect::<Vec<_>>(), ["proxy-2"]);
        let said = "ApiError: Get \"https://10.0.0.2:10250/containerLogs/a/b/c\": dial tcp 10.0.0.2:10250: connect: ";
        assert!(is_cut_off(&format!("{said}no route to host")) && !is_cut_off(&format!("{said}connection refused")));
        assert!(!is_cut_off("no answer within 3 s"));
    }
}
