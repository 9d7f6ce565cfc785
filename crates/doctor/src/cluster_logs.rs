//! The last words of the cluster's own pods, through its API: of the control plane always, of others where they do not do
//! well. Pods in people's own namespaces are not read.

use std::time::Duration;

use http::Request;
use kedge_client::Client;
use kedge_diagnosis::{Evidence, Fact, Item, LogFact, LogSource, Place, Unseen};
use serde_json::Value;

use crate::node::is_the_clusters;

const LINES: u32 = 300;
/// Logs that are asked for at all; more would tell the same.
const MOST: usize = 40;
/// A machine that is down answers nobody.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a log may have in bytes.
const MOST_BYTES: u32 = 128 << 10;

/// A log to ask for.
struct Wanted {
    namespace: String,
    pod: String,
    container: String,
    node: String,
    previous: bool,
}

/// Reads them, all at once. `evidence` has the pods.
pub(crate) async fn read(client: &Client, evidence: &mut Evidence) {
    let pods = evidence.items.iter().filter_map(|item| match &item.fact {
        Fact::Object(object) if object["kind"] == "Pod" => Some(object),
        _ => None,
    });
    let wanted: Vec<Wanted> = pods.filter(|pod| is_wanted(pod)).flat_map(logs_of).take(MOST).collect();
    let calls: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            let client = client.clone();
            tokio::spawn(async move { (ask(&client, &wanted).await, wanted) })
        })
        .collect();
    for call in calls {
        match call.await {
            Ok((Ok(text), wanted)) => evidence.items.extend(text.lines().map(|line| item(&wanted, line))),
            Ok((Err(why), wanted)) => {
                evidence.unseen.push(Unseen { what: format!("log of {}/{}", wanted.namespace, wanted.pod), why });
            }
            Err(error) => evidence.unseen.push(Unseen { what: "logs of pods".to_owned(), why: error.to_string() }),
        }
    }
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

async fn ask(client: &Client, wanted: &Wanted) -> Result<String, String> {
    let Wanted { namespace, pod, container, previous, .. } = wanted;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={LINES}&limitBytes={MOST_BYTES}&timestamps=true&previous={previous}"
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
}
