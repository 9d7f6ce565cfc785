//! A scheduler that asks an extender who may be preempted, over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kedge_scheduler::KubeSchedulerConfiguration;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use super::harness::Cluster;

/// What an extender answers to what it is asked.
type Answer = fn(&Value) -> Value;

/// An extender that looks over preemptions, and what it was asked; it ends with the test.
struct Extender {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Extender {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = log.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let log = log.clone();
                    async move {
                        assert_eq!(request.uri().path(), "/scheduler/preempt");
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let asked: Value = serde_json::from_slice(&body).unwrap();
                        let text = answer(&asked).to_string();
                        log.lock().unwrap().push(asked);
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked }
    }

    fn configuration(&self, knows_nodes: bool) -> KubeSchedulerConfiguration {
        let text = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "extenders": [{"urlPrefix": format!("http://{}/scheduler", self.address), "preemptVerb": "preempt",
                "nodeCacheCapable": knows_nodes}]});
        KubeSchedulerConfiguration::from_yaml(&text.to_string()).unwrap()
    }

    /// The first thing it was asked.
    fn first(&self) -> Value {
        self.asked.lock().unwrap().first().cloned().unwrap()
    }
}

fn pod(name: &str, cpu: &str, class: Option<&str>) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"priorityClassName": class, "containers": [
        {"name": "main", "image": "example.com/i", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// A node that `large` and `small` fill; without `small` a pod of half a processor has room.
async fn crowded(extender: &Extender, knows_nodes: bool) -> (Cluster, DropGuard) {
    let cluster = Cluster::scheduling(extender.configuration(knows_nodes)).await;
    let simulation = cluster.simulate("nodes=1,cpu=4");
    cluster.until_pods_have_an_account().await;
    for (name, value) in [("middle", 5), ("high", 10)] {
        cluster.create_in_cluster::<PriorityClass>(json!({"metadata": {"name": name}, "value": value})).await;
    }
    cluster.create::<Pod>(pod("large", "3", Some("middle"))).await;
    cluster.create::<Pod>(pod("small", "900m", None)).await;
    cluster.until::<Pod>("the node is full", |pods| pods.len() == 2 && pods.iter().all(|pod| is_running(pod))).await;
    (cluster, simulation)
}

/// The only pod that goes from the only node, as the scheduler chose.
fn only_victim<'a>(asked: &'a Value, field: &str) -> (&'a str, &'a Value) {
    let (node, victims) = asked[field].as_object().unwrap().iter().next().unwrap();
    assert_eq!(victims["Pods"].as_array().unwrap().len(), 1, "{asked}");
    (node, &victims["Pods"][0])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_sees_whole_victims() {
    let extender = Extender::start(|asked| {
        let (node, victim) = only_victim(asked, "NodeNameToVictims");
        json!({"NodeNameToMetaVictims": {node: {"Pods": [{"UID": victim["metadata"]["uid"]}], "NumPDBViolations": 0}}})
    })
    .await;
    let (cluster, _simulation) = crowded(&extender, false).await;
    cluster.create::<Pod>(pod("high", "500m", Some("high"))).await;
    let left = cluster
        .until::<Pod>("who matters more runs", |pods| names(pods) == ["high", "large"] && is_running(&pods[0]))
        .await;
    assert!(is_running(&left[1]), "whom nobody named stays");
    let asked = extender.first();
    assert_eq!(asked["NodeNameToMetaVictims"], Value::Null);
    assert_eq!(asked["Pod"]["metadata"]["name"], "high");
    let (node, victim) = only_victim(&asked, "NodeNameToVictims");
    assert_eq!(victim["metadata"]["labels"]["app"], "small");
    assert_eq!((&victim["spec"]["nodeName"], &victim["status"]["phase"]), (&json!(node), &json!("Running")));
    assert_eq!(victim["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "900m"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_that_knows_nodes_gets_uids_and_may_name_others() {
    let extender = Extender::start(|asked| {
        let (node, victim) = only_victim(asked, "NodeNameToMetaVictims");
        assert_eq!(victim.as_object().unwrap().len(), 1, "a uid and no more: {victim}");
        let large = asked["Pod"]["metadata"]["annotations"]["test/large"].clone();
        json!({"NodeNameToMetaVictims": {node: {"Pods": [{"UID": large}]}}})
    })
    .await;
    let (cluster, _simulation) = crowded(&extender, true).await;
    let uid_of = async |name: &str| cluster.api::<Pod>().get(name).await.unwrap().metadata.uid;
    let (large, small) = (uid_of("large").await, uid_of("small").await);
    let mut high = pod("high", "500m", Some("high"));
    high["metadata"]["annotations"] = json!({"test/large": large});
    cluster.create::<Pod>(high).await;
    cluster
        .until::<Pod>("who matters more runs", |pods| names(pods) == ["high", "small"] && is_running(&pods[0]))
        .await;
    let asked = extender.first();
    assert_eq!(asked["NodeNameToVictims"], Value::Null);
    assert_eq!(only_victim(&asked, "NodeNameToMetaVictims").1["UID"], json!(small));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_keeps_pods_where_they_are() {
    let extender = Extender::start(|_| json!({"NodeNameToMetaVictims": {}})).await;
    let (cluster, _simulation) = crowded(&extender, true).await;
    cluster.create::<Pod>(pod("high", "500m", Some("high"))).await;
    cluster.until_event("preemption: no candidate node for preemption").await;
    assert_eq!(names(&cluster.until::<Pod>("all are there", |pods| pods.len() == 3).await), ["high", "large", "small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extender_that_talks_nonsense_is_quoted() {
    let extender = Extender::start(|_| json!({"NodeNameToMetaVictims": {"nowhere": {"Pods": [{"UID": "a"}]}}})).await;
    let (cluster, _simulation) = crowded(&extender, false).await;
    cluster.create::<Pod>(pod("high", "500m", Some("high"))).await;
    cluster.until_event("preemption: nodeinfo not found for node name \"nowhere\"").await;
}
