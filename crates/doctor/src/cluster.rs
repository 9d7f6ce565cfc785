//! What the API says: nodes, pods, what makes them, claims, namespaces, aggregated servers, and recent events.
//!
//! Any cluster's. The least privilege is the role `view` and reading nodes; what is forbidden is listed as not seen.

use http::Request;
use jiff::Timestamp;
use kedge_client::{Client, classify};
use kedge_diagnosis::{Evidence, Fact, Item, Place, Unseen};
use serde_json::Value;

/// Resources, as people name them, with the path of their list and the kind of its items.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("nodes", "/api/v1/nodes", "Node"),
    ("pods", "/api/v1/pods", "Pod"),
    ("namespaces", "/api/v1/namespaces", "Namespace"),
    ("persistentvolumeclaims", "/api/v1/persistentvolumeclaims", "PersistentVolumeClaim"),
    ("deployments", "/apis/apps/v1/deployments", "Deployment"),
    ("replicasets", "/apis/apps/v1/replicasets", "ReplicaSet"),
    ("statefulsets", "/apis/apps/v1/statefulsets", "StatefulSet"),
    ("daemonsets", "/apis/apps/v1/daemonsets", "DaemonSet"),
    ("apiservices", "/apis/apiregistration.k8s.io/v1/apiservices", "APIService"),
    ("events", "/api/v1/events", "Event"),
];
const PAGE: u32 = 500;
/// Pages of one resource: 200,000 objects.
const MOST_PAGES: u32 = 400;

/// Reads a cluster through its API. `server` is what a person calls it by.
pub async fn gather_cluster(client: &Client, server: &str) -> Evidence {
    let mut evidence = Evidence { gathered: Timestamp::now(), ..Evidence::default() };
    for (name, path, kind) in RESOURCES {
        match list(client, path).await {
            Ok(objects) => {
                evidence.items.extend(objects.into_iter().map(|object| item(name, kind, object)));
            }
            Err(error) if is_unreachable(&error) => {
                let fact = Fact::Call { target: server.to_owned(), error: Some(chain(&error)) };
                evidence.items.push(Item { time: None, place: Place::Cluster, origin: "kubeconfig".to_owned(), fact });
                let why = "the API server does not answer".to_owned();
                evidence.unseen.push(Unseen { what: "all objects".to_owned(), why });
                break;
            }
            Err(error) => evidence.unseen.push(Unseen { what: (*name).to_owned(), why: chain(&error) }),
        }
    }
    evidence
}

fn item(resource: &str, kind: &str, mut object: Value) -> Item {
    // Items of a list do not say what they are.
    object["kind"] = Value::from(kind);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let time = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|path| object.pointer(path)?.as_str()?.parse().ok());
    let namespace = object["metadata"]["namespace"].as_str();
    let all = namespace.map_or(String::new(), |namespace| format!(" -n {namespace}"));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let origin = format!("kubectl get {resource}{all} {name}");
    Item { time, place: Place::Cluster, origin, fact: Fact::Object(object) }
}

async fn list(client: &Client, path: &str) -> Result<Vec<Value>, kube::Error> {
    let (mut objects, mut next) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let request = Request::get(format!("{path}?limit={PAGE}{next}")).body(Vec::new());
        let request =
            request.map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
        let mut page: Value = client.request(request).await?;
        if let Value::Array(items) = page["items"].take() {
            objects.extend(items);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => break,
        }
    }
    Ok(objects)
}

/// Whether nobody answered at all, unlike an answer that is a refusal.
fn is_unreachable(error: &kube::Error) -> bool {
    classify(error).is_about_the_server()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
