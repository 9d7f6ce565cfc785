//! What the API says: nodes, pods, what makes them, volumes, Services, what admits and extends, recent events, and the last words of
//! the cluster's own pods.
//!
//! Any cluster's. The least privilege is to list these kinds and nothing else: the role `view` has most of them, and
//! Secrets are none. What is forbidden is listed as not seen. Invariant: pages are reduced as they come, so that memory
//! follows what is wrong and not how large the cluster is.

use http::Request;
use jiff::Timestamp;
use kedge_bundle::Reducer;
use kedge_client::{Client, FailureCause, classify};
use kedge_diagnosis::{Evidence, Fact, Item, Place, Subject, Unseen};
use serde_json::Value;

/// Resources, as people name them, with the path of their list and the kind of its items. Services come
/// after their endpoints, these after those who name them, and Pods after Nodes.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("nodes", "/api/v1/nodes", "Node"),
    ("apiservices", "/apis/apiregistration.k8s.io/v1/apiservices", "APIService"),
    (
        "mutatingwebhookconfigurations",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
    (
        "validatingwebhookconfigurations",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
    (
        "customresourcedefinitions",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "CustomResourceDefinition",
    ),
    ("pods", "/api/v1/pods", "Pod"),
    ("namespaces", "/api/v1/namespaces", "Namespace"),
    ("persistentvolumeclaims", "/api/v1/persistentvolumeclaims", "PersistentVolumeClaim"),
    ("persistentvolumes", "/api/v1/persistentvolumes", "PersistentVolume"),
    ("storageclasses", "/apis/storage.k8s.io/v1/storageclasses", "StorageClass"),
    ("volumeattachments", "/apis/storage.k8s.io/v1/volumeattachments", "VolumeAttachment"),
    ("deployments", "/apis/apps/v1/deployments", "Deployment"),
    ("replicasets", "/apis/apps/v1/replicasets", "ReplicaSet"),
    ("statefulsets", "/apis/apps/v1/statefulsets", "StatefulSet"),
    ("daemonsets", "/apis/apps/v1/daemonsets", "DaemonSet"),
    ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice"),
    ("services", "/api/v1/services", "Service"),
    ("poddisruptionbudgets", "/apis/policy/v1/poddisruptionbudgets", "PodDisruptionBudget"),
    (
        "certificatesigningrequests",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        "CertificateSigningRequest",
    ),
    ("servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", "ServiceCIDR"),
    (
        "configmap coredns",
        "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dcoredns",
        "ConfigMap",
    ),
    ("events", "/api/v1/events", "Event"),
];
const PAGE: u32 = 500;
/// Pages of one resource: 200,000 objects.
const MOST_PAGES: u32 = 400;

/// Reads a cluster through its API. `server` is what a person calls it by.
pub async fn gather_cluster(client: &Client, server: &str) -> Evidence {
    let mut evidence = Evidence { gathered: Timestamp::now(), ..Evidence::default() };
    let mut reducer = Reducer::default();
    for (name, path, kind) in RESOURCES {
        let listed = list(client, path, |object| {
            if let Some(object) = reducer.reduce(kind, object) {
                evidence.items.push(item(name, object));
            }
        });
        match listed.await {
            Ok(()) => {}
            Err(error) if is_unreachable(&error) => {
                let fact = Fact::Call { target: server.to_owned(), error: Some(chain(&error)) };
                evidence.items.push(Item { time: None, place: Place::Cluster, origin: "kubeconfig".to_owned(), fact });
                let why = "the API server does not answer".to_owned();
                evidence.unseen.push(Unseen { what: "all objects".to_owned(), why });
                break;
            }
            // Older clusters do not have every kind.
            Err(error) if matches!(classify(&error), FailureCause::Status(404)) => {}
            Err(error) => evidence.unseen.push(Unseen { what: (*name).to_owned(), why: chain(&error) }),
        }
    }
    let well = reducer.well().map(|well| {
        let origin = format!("kubectl get pods -n {}", well.namespace);
        Item { time: None, place: Place::Cluster, origin, fact: Fact::Well(well) }
    });
    evidence.items.extend(well);
    crate::cluster_logs::read(client, &mut evidence).await;
    evidence
}

/// Where in the API an object is; nothing for what is none of the kinds that are looked at.
pub fn object_path(subject: &Subject) -> Option<String> {
    let (_, path, _) = RESOURCES.iter().find(|(_, _, kind)| *kind == subject.kind)?;
    let (list, name) = (path.split('?').next()?, &subject.name);
    if list.contains("/namespaces/") || subject.namespace.is_empty() {
        return Some(format!("{list}/{name}"));
    }
    let (group, resource) = list.rsplit_once('/')?;
    Some(format!("{group}/namespaces/{}/{resource}/{name}", subject.namespace))
}

fn item(resource: &str, object: Value) -> Item {
    let time = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|path| object.pointer(path)?.as_str()?.parse().ok());
    let resource = resource.split(' ').next().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str();
    let all = namespace.map_or(String::new(), |namespace| format!(" -n {namespace}"));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let origin = format!("kubectl get {resource}{all} {name}");
    Item { time, place: Place::Cluster, origin, fact: Fact::Object(object) }
}

/// Every object of a list, page by page.
async fn list(client: &Client, path: &str, mut each: impl FnMut(Value)) -> Result<(), kube::Error> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut next = String::new();
    for _ in 0..MOST_PAGES {
        let request = Request::get(format!("{path}{separator}limit={PAGE}{next}")).body(Vec::new());
        let request =
            request.map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
        let mut page: Value = client.request(request).await?;
        if let Value::Array(items) = page["items"].take() {
            items.into_iter().for_each(&mut each);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => break,
        }
    }
    Ok(())
}

/// Whether nobody answered at all, unlike an answer that is a refusal.
fn is_unreachable(error: &kube::Error) -> bool {
    classify(error).is_about_the_server()
}

/// An error with its causes, each one once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_their_path() {
        let path = |kind: &str, namespace: &str, name: &str| {
            object_path(&Subject { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
        };
        assert_eq!(path("Node", "", "one").as_deref(), Some("/api/v1/nodes/one"));
        assert_eq!(path("Pod", "a", "web").as_deref(), Some("/api/v1/namespaces/a/pods/web"));
        assert_eq!(path("Deployment", "a", "web").as_deref(), Some("/apis/apps/v1/namespaces/a/deployments/web"));
        let coredns = "/api/v1/namespaces/kube-system/configmaps/coredns";
        assert_eq!(path("ConfigMap", "kube-system", "coredns").as_deref(), Some(coredns));
        assert_eq!(path("File", "", "/etc/x"), None);
    }
}
