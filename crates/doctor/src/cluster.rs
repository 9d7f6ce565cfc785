//! What the API says: nodes, pods, what makes them, volumes, Services, what admits and extends, recent events, and the last words of
//! the cluster's own pods.
//!
//! Any cluster's. The least privilege is to list these kinds and nothing else: the role `view` has most of them, and
//! Secrets are none. What is forbidden is listed as not seen. Invariant: pages are reduced as they come, so that memory
//! follows what is wrong and not how large the cluster is.

mod pages;

use http::Request;
use jiff::Timestamp;
use kedge_client::{Client, FailureCause, classify};
use kedge_diagnosis::{Evidence, Fact, Item, Place, Subject, Unseen};
use tokio::sync::mpsc;

use pages::Page;

/// A resource that is looked at.
struct Resource {
    /// As people name it.
    name: &'static str,
    /// Of its list.
    path: &'static str,
    /// Of the list's items.
    kind: &'static str,
}

/// Services come after their endpoints, these after those who name them, and Pods after Nodes.
const RESOURCES: &[Resource] = &[
    resource("nodes", "/api/v1/nodes", "Node"),
    resource("apiservices", "/apis/apiregistration.k8s.io/v1/apiservices", "APIService"),
    resource(
        "mutatingwebhookconfigurations",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
    resource(
        "validatingwebhookconfigurations",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
    resource(
        "customresourcedefinitions",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "CustomResourceDefinition",
    ),
    resource("pods", "/api/v1/pods", "Pod"),
    resource("namespaces", "/api/v1/namespaces", "Namespace"),
    resource("persistentvolumeclaims", "/api/v1/persistentvolumeclaims", "PersistentVolumeClaim"),
    resource("persistentvolumes", "/api/v1/persistentvolumes", "PersistentVolume"),
    resource("storageclasses", "/apis/storage.k8s.io/v1/storageclasses", "StorageClass"),
    resource("volumeattachments", "/apis/storage.k8s.io/v1/volumeattachments", "VolumeAttachment"),
    resource("deployments", "/apis/apps/v1/deployments", "Deployment"),
    resource("replicasets", "/apis/apps/v1/replicasets", "ReplicaSet"),
    resource("statefulsets", "/apis/apps/v1/statefulsets", "StatefulSet"),
    resource("daemonsets", "/apis/apps/v1/daemonsets", "DaemonSet"),
    resource("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice"),
    resource("services", "/api/v1/services", "Service"),
    resource("poddisruptionbudgets", "/apis/policy/v1/poddisruptionbudgets", "PodDisruptionBudget"),
    resource(
        "certificatesigningrequests",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        "CertificateSigningRequest",
    ),
    resource("networkpolicies", "/apis/networking.k8s.io/v1/networkpolicies", "NetworkPolicy"),
    resource("servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", "ServiceCIDR"),
    resource(
        "configmap coredns",
        "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dcoredns",
        "ConfigMap",
    ),
    resource("events", "/api/v1/events", "Event"),
];
const PAGE: u32 = 500;
/// Pages of one resource: 200,000 objects.
const MOST_PAGES: u32 = 400;
/// Pages that wait to be read.
const WAITING: usize = 1;

const fn resource(name: &'static str, path: &'static str, kind: &'static str) -> Resource {
    Resource { name, path, kind }
}

/// Reads a cluster through its API. `server` is what a person calls it by.
pub async fn gather_cluster(client: &Client, server: &str) -> Evidence {
    let gathered = Timestamp::now();
    let (pages, received) = mpsc::channel(WAITING);
    let reading = tokio::task::spawn_blocking(|| pages::read(received));
    let (mut items, mut unseen) = (Vec::new(), Vec::new());
    for resource in RESOURCES {
        match list(client, resource, &pages).await {
            Ok(()) => {}
            Err(error) if is_unreachable(&error) => {
                let fact = Fact::Call { target: server.to_owned(), error: Some(chain(&error)) };
                items.push(Item { time: None, place: Place::Cluster, origin: "kubeconfig".to_owned(), fact });
                let why = "the API server does not answer".to_owned();
                unseen.push(Unseen { what: "all objects".to_owned(), why });
                break;
            }
            // Older clusters do not have every kind.
            Err(error) if matches!(classify(&error), FailureCause::Status(404)) => {}
            Err(error) => unseen.push(Unseen { what: resource.name.to_owned(), why: chain(&error) }),
        }
    }
    drop(pages);
    let read = reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let mut evidence = Evidence { gathered, ..read };
    evidence.items.extend(items);
    evidence.unseen.extend(unseen);
    crate::cluster_logs::read(client, &mut evidence).await;
    evidence
}

/// Where in the API an object is; nothing for what is none of the kinds that are looked at.
pub fn object_path(subject: &Subject) -> Option<String> {
    let resource = RESOURCES.iter().find(|resource| resource.kind == subject.kind)?;
    let (list, name) = (resource.path.split('?').next()?, &subject.name);
    if list.contains("/namespaces/") || subject.namespace.is_empty() {
        return Some(format!("{list}/{name}"));
    }
    let (group, resource) = list.rsplit_once('/')?;
    Some(format!("{group}/namespaces/{}/{resource}/{name}", subject.namespace))
}

/// Hands on every page of a list. The next one is asked for before one has been read.
async fn list(client: &Client, resource: &'static Resource, pages: &mpsc::Sender<Page>) -> Result<(), kube::Error> {
    let path = resource.path;
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut next = String::new();
    for _ in 0..MOST_PAGES {
        let request = Request::get(format!("{path}{separator}limit={PAGE}{next}")).body(Vec::new());
        let request =
            request.map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
        let text = client.request_text(request).await?;
        let token = pages::next(&text);
        // Nobody takes it where reading has failed, which is told at the end.
        let is_taken = pages.send(Page { resource, text }).await.is_ok();
        match token {
            Some(token) if is_taken => next = format!("&continue={token}"),
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
    use kube::client::Body;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    /// What a server says to a path with its query: a status and a body.
    fn answer(path: &str) -> (u16, Value) {
        let list = |next: &str, names: &[&str]| {
            let items: Vec<_> =
                names.iter().map(|name| json!({"metadata": {"namespace": "a", "name": name}})).collect();
            (200, json!({"metadata": {"continue": next}, "items": items}))
        };
        let refusal = |code: u16, why: &str| {
            (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": why, "code": code}))
        };
        match path {
            "/api/v1/pods?limit=500" => list("two", &["one", "another"]),
            "/api/v1/pods?limit=500&continue=two" => list("three", &["two"]),
            "/api/v1/pods?limit=500&continue=three" => list("", &["three"]),
            _ if path.starts_with("/api/v1/nodes") => refusal(403, "nodes is forbidden"),
            _ if path.starts_with(
                "/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dcoredns&limit",
            ) =>
            {
                list("", &["coredns"])
            }
            _ if path.starts_with("/apis/") => refusal(404, "there is no such kind"),
            _ => list("", &[]),
        }
    }

    #[tokio::test]
    async fn every_page_is_read_and_what_is_refused_is_not_seen() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let client = kedge_client::client_from_service(tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let (code, body) = answer(&path);
            seen.lock().expect("nobody panicked").push(path);
            let response = http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            std::future::ready(response)
        }));
        let evidence = gather_cluster(&client, "https://one:6443").await;
        let origins: Vec<_> = evidence.items.iter().map(|item| item.origin.as_str()).collect();
        assert_eq!(
            origins,
            ["one", "another", "two", "three"]
                .map(|name| format!("kubectl get pods -n a {name}"))
                .into_iter()
                .chain(["kubectl get configmap -n a coredns".to_owned()])
                .collect::<Vec<_>>()
        );
        assert_eq!(evidence.unseen.iter().map(|unseen| unseen.what.as_str()).collect::<Vec<_>>(), ["nodes"]);
        let asked = asked.lock().expect("nobody panicked");
        assert_eq!(asked.iter().filter(|path| path.starts_with("/api/v1/pods")).count(), 3, "{asked:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_asked_once() {
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        let client = kedge_client::client_from_service(tower::service_fn(move |_: Request<Body>| {
            *count.lock().expect("nobody panicked") += 1;
            std::future::ready(Err::<http::Response<Body>, _>(std::io::Error::from(
                std::io::ErrorKind::ConnectionRefused,
            )))
        }));
        let evidence = gather_cluster(&client, "https://one:6443").await;
        assert!(matches!(&evidence.items[..], [Item { fact: Fact::Call { error: Some(_), .. }, .. }]), "{evidence:?}");
        assert_eq!(evidence.unseen.iter().map(|unseen| unseen.what.as_str()).collect::<Vec<_>>(), ["all objects"]);
        assert_eq!(*asked.lock().expect("nobody panicked"), 1);
    }

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
