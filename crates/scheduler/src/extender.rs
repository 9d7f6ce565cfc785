//! Extenders: programs outside that filter nodes, score them, look over preemptions and bind pods, over HTTP.
//!
//! Only the way there and back: what an answer means for a decision is the scheduler's business. Invariant: an extender
//! that does not answer in its time has failed; it is asked nothing again for the same attempt.

mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::configuration::{ExtenderConfiguration, duration};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::Candidate;

/// Upstream's `DefaultExtenderTimeout`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an extender can't be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    /// Its address or its certificates are of no use.
    #[error("cannot use the extender {url}")]
    Unusable {
        /// Where it is said to be.
        url: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What an extender said about nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) fitting: Vec<String>,
    /// Refused nodes with the reasons, and whether it would be of no use that other pods went away.
    pub(crate) failed: HashMap<String, (String, bool)>,
}

/// A node on which a preemption is all right with an extender.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spared {
    pub(crate) node: String,
    /// Who has to go, be it whom the scheduler chose or others.
    pub(crate) uids: Vec<String>,
    /// How many of them go against a disruption budget.
    pub(crate) violations: usize,
}

/// An extender.
#[derive(Clone)]
pub(crate) struct Extender {
    said: Arc<ExtenderConfiguration>,
    client: Client,
    patience: Duration,
}

impl Extender {
    pub(crate) async fn new(said: &ExtenderConfiguration) -> Result<Self, ExtenderError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| ExtenderError::Unusable {
            url: said.url_prefix.clone(),
            source,
        };
        let kubeconfig: Kubeconfig =
            serde_json::from_value(wire::kubeconfig(said)).map_err(|error| unusable(error.into()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| unusable(error.into()))?;
        let patience = said.http_timeout.as_deref().and_then(duration).filter(|time| !time.is_zero());
        let patience = patience.unwrap_or(PATIENCE);
        config.connect_timeout = Some(patience);
        config.read_timeout = Some(patience);
        let client = Client::try_from(config).map_err(|error| unusable(error.into()))?;
        Ok(Self { said: Arc::new(said.clone()), client, patience })
    }

    /// Its address, by which it is known in messages.
    pub(crate) fn name(&self) -> &str {
        &self.said.url_prefix
    }

    /// Whether pods are placed without it where it fails.
    pub(crate) fn is_ignorable(&self) -> bool {
        self.said.ignorable
    }

    pub(crate) fn filters(&self) -> bool {
        !self.said.filter_verb.is_empty()
    }

    pub(crate) fn prioritizes(&self) -> bool {
        !self.said.prioritize_verb.is_empty()
    }

    pub(crate) fn preempts(&self) -> bool {
        !self.said.preempt_verb.is_empty()
    }

    pub(crate) fn binds(&self) -> bool {
        !self.said.bind_verb.is_empty()
    }

    /// Whether a pod is its business: it asks for one of its resources, or the extender is there for all.
    pub(crate) fn is_interested(&self, pod: &PodInfo) -> bool {
        let Some(spec) = &pod.pod().spec else { return false };
        let managed = &self.said.managed_resources;
        let named = |name: &String| managed.iter().any(|resource| resource.name == *name);
        managed.is_empty()
            || spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|container| {
                let resources = container.resources.iter();
                let lists = resources.flat_map(|all| all.requests.iter().chain(&all.limits));
                lists.flat_map(|list| list.keys()).any(named)
            })
    }

    /// Asks which of the nodes fit.
    pub(crate) async fn filter(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<Filtered, String> {
        let body = wire::arguments(pod, nodes, self.said.node_cache_capable);
        let answer = self.send(&self.said.filter_verb, &body).await?;
        let filtered = wire::filtered(&answer)?;
        let unknown = filtered.fitting.iter().find(|name| !nodes.iter().any(|node| is_named(node, name)));
        match unknown {
            Some(name) => Err(format!(
                "extender {:?} claims a filtered node {name:?} which is not found in the input node list",
                self.name()
            )),
            None => Ok(filtered),
        }
    }

    /// Asks how nodes are liked; in the unit of plugins' scores.
    pub(crate) async fn prioritize(&self, pod: &PodInfo, nodes: &[Arc<Node>]) -> Result<HashMap<String, i64>, String> {
        let body = wire::arguments(pod, nodes, self.said.node_cache_capable);
        let answer = self.send(&self.said.prioritize_verb, &body).await?;
        Ok(wire::scores(&answer, self.said.weight))
    }

    /// Whether it knows nodes and pods itself: it is told their names and uids, the others get them whole.
    pub(crate) fn knows_nodes(&self) -> bool {
        self.said.node_cache_capable
    }

    /// Asks which candidates of a preemption are good ones, and who has to go there.
    pub(crate) async fn preempt(&self, pod: &PodInfo, candidates: &[Candidate]) -> Result<Vec<Spared>, String> {
        let body = wire::victims(pod, candidates, self.knows_nodes());
        let answer = self.send(&self.said.preempt_verb, &body).await?;
        Ok(wire::spared(&answer))
    }

    /// What it said about a node as a candidate, with upstream's words where it makes no sense. One that may be ignored may
    /// also name nobody: then the node is none.
    pub(crate) fn candidate(&self, said: Spared, node: Option<&NodeInfo>) -> Result<Option<Candidate>, String> {
        let node = node.ok_or_else(|| format!("nodeinfo not found for node name {:?}", said.node))?;
        let known = |uid: &String| {
            let found = node.pods.iter().find(|pod| pod.uid == *uid).cloned();
            found.ok_or_else(|| {
                let (name, node) = (self.name(), &node.name);
                format!(
                    "extender: {name} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on \
                     that node"
                )
            })
        };
        let victims = said.uids.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        match (victims.is_empty(), self.is_ignorable()) {
            (false, _) => Ok(Some(Candidate { node: said.node, victims, violations: said.violations })),
            (true, true) => Ok(None),
            (true, false) => Err(format!("expected at least one victim pod on node {:?}", said.node)),
        }
    }

    /// Lets it bind a pod.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let body = json!({
            "PodName": pod.key.name, "PodNamespace": pod.key.namespace,
            "PodUID": pod.pod().metadata.uid, "Node": node,
        });
        wire::error(&self.send(&self.said.bind_verb, &body).await?)
    }

    async fn send(&self, verb: &str, body: &Value) -> Result<Value, String> {
        let failed = |why: String| format!("extender {:?} failed at {verb}: {why}", self.name());
        let request = Request::post(format!("/{}", verb.trim_start_matches('/')))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(self.patience, self.client.request::<Value>(request)).await {
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
            Ok(Err(kube::Error::Api(status))) => {
                let url = format!("{}/{verb}", self.name().trim_end_matches('/'));
                Err(format!("failed {verb} with extender at URL {url}, code {}", status.code))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

fn is_named(node: &Node, name: &str) -> bool {
    node.metadata.name.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{node, pod};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// An extender that answers one request with `answer`, and hands back what it was asked.
    async fn serve(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/scheduler", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                let body = request.split_once("\r\n\r\n").map(|(_, body)| body.len());
                let length = request
                    .to_lowercase()
                    .split_once("content-length: ")
                    .map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap());
                if body.is_some() && body >= length {
                    break;
                }
            }
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
            request
        });
        (url, asked)
    }

    fn nodes() -> Vec<Arc<Node>> {
        ["n1", "n2"].map(|name| Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())).into()
    }

    fn said(url: String, rest: Value) -> ExtenderConfiguration {
        let mut value = rest;
        value["urlPrefix"] = json!(url);
        serde_json::from_value(value).unwrap()
    }

    fn asking() -> PodInfo {
        pod(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": {"example.org/gpu": "1"}}}]}}))
    }

    #[tokio::test]
    async fn nodes_are_filtered_outside() {
        let (url, asked) = serve("{\"nodenames\": [\"n2\"], \"failedNodes\": {\"n1\": \"too cold\"}}").await;
        let extender =
            Extender::new(&said(url, json!({"filterVerb": "filter", "nodeCacheCapable": true}))).await.unwrap();
        let filtered = extender.filter(&asking(), &nodes()).await.unwrap();
        assert_eq!(filtered.fitting, ["n2"]);
        assert_eq!(filtered.failed["n1"], ("too cold".to_owned(), false));
        let request = asked.await.unwrap();
        assert!(request.starts_with("POST /scheduler/filter HTTP/1.1"), "{request}");
        assert!(request.contains("\"NodeNames\":[\"n1\",\"n2\"]"), "{request}");
    }

    #[tokio::test]
    async fn a_bound_pod_is_one_that_the_extender_says_it_bound() {
        let (url, asked) = serve("{\"Error\": \"no room\"}").await;
        let extender = Extender::new(&said(url, json!({"bindVerb": "bind"}))).await.unwrap();
        assert_eq!(extender.bind(&asking(), "n1").await, Err("no room".to_owned()));
        assert!(asked.await.unwrap().contains("\"PodUID\":\"u\""));
    }

    #[tokio::test]
    async fn only_pods_with_its_resources_concern_it() {
        for (managed, is_interested) in [
            (json!([]), true),
            (json!([{"name": "example.org/gpu"}]), true),
            (json!([{"name": "example.org/fpga"}]), false),
        ] {
            let said = said("http://127.0.0.1:1".to_owned(), json!({"managedResources": managed}));
            assert_eq!(Extender::new(&said).await.unwrap().is_interested(&asking()), is_interested, "{said:?}");
        }
        let nowhere = Extender::new(&said("http://127.0.0.1:1".to_owned(), json!({"filterVerb": "f"}))).await.unwrap();
        assert!(nowhere.filter(&asking(), &nodes()).await.is_err());
    }

    #[tokio::test]
    async fn whom_an_extender_names_must_be_there() {
        let victim = |name: &str| pod(json!({"metadata": {"name": name, "uid": name}}));
        let n1 = node(json!({"metadata": {"name": "n1"}}), vec![victim("a"), victim("b")]);
        let check = async |is_ignorable: bool, uids: &[&str], node: Option<&NodeInfo>, expected: Result<&str, &str>| {
            let said = said("http://127.0.0.1:1".to_owned(), json!({"preemptVerb": "p", "ignorable": is_ignorable}));
            let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
            let spared = Spared { node: "n1".to_owned(), uids, violations: 1 };
            let found = Extender::new(&said).await.unwrap().candidate(spared, node);
            let names = found.map(|found| {
                let victims = found.into_iter().flat_map(|candidate| candidate.victims);
                victims.map(|victim| victim.key.name.clone()).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(names, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check(false, &["b", "a"], Some(&n1), Ok("b a")).await;
        check(true, &[], Some(&n1), Ok("")).await;
        check(false, &[], Some(&n1), Err("expected at least one victim pod on node \"n1\"")).await;
        check(true, &["a"], None, Err("nodeinfo not found for node name \"n1\"")).await;
        let gone = "extender: http://127.0.0.1:1 claims to preempt pod (UID: c) on node: n1, but the pod is not found on \
                    that node";
        check(true, &["a", "c"], Some(&n1), Err(gone)).await;
    }
}
