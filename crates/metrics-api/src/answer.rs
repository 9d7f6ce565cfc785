//! Answers to requests, out of memory.
//!
//! It checks no user: whoever mounts it has done so. Invariant: an object that exists but was not measured yet is not found,
//! and left out of lists.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_client::Informer;
use kedge_meta::{ApiStatus, Clock, GroupResource, format_time};
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::points::Points;
use crate::query::{Form, Query, What};
use crate::table::{Row, metadata, table};
use crate::usage::{Usage, duration_text};

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// The version.
pub const VERSION: &str = "v1beta1";

/// The annotation of nodes that have no kubelet, and addresses that lead nowhere.
const SIMULATED: &str = "kedge.dev/simulated";

/// A resource of the group.
#[derive(Debug, Clone, Copy)]
pub struct ServedResource {
    /// Plural name.
    pub resource: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Whether objects lie in namespaces.
    pub namespaced: bool,
    /// What may be done.
    pub verbs: &'static [&'static str],
}

/// The resources of the group.
pub const RESOURCES: [ServedResource; 2] = [
    ServedResource { resource: "nodes", kind: "NodeMetrics", namespaced: false, verbs: &["get", "list"] },
    ServedResource { resource: "pods", kind: "PodMetrics", namespaced: true, verbs: &["get", "list"] },
];

/// Roles that belong to the group: what readers may do, bound into `admin`, `edit` and `view`; and what `user`, who scrapes,
/// may do.
pub fn roles(user: &str) -> Vec<Value> {
    const API: &str = "rbac.authorization.k8s.io";
    let reader = json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
            "k8s-app": "metrics-server",
            "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-edit": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}]});
    let scraper = json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": {"name": user},
        "rules": [{"apiGroups": [""], "resources": ["nodes/metrics", "nodes/proxy"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}]});
    let binding = json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": API, "kind": "User", "name": user}]});
    vec![reader, scraper, binding]
}

/// Answers requests for the group.
#[derive(Clone)]
pub struct MetricsService {
    pub(crate) points: Arc<RwLock<Points>>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    clock: Arc<dyn Clock>,
}

impl MetricsService {
    /// A service that knows nodes and pods by their informers, and nothing of their use until [`crate::run`] scrapes.
    pub fn new(nodes: Informer<Node>, pods: Informer<Pod>, clock: Arc<dyn Clock>) -> Self {
        Self { points: Arc::default(), nodes, pods, clock }
    }

    /// The nodes that can be asked: all but simulated ones.
    pub(crate) fn node_names(&self) -> Vec<String> {
        let is_simulated = |node: &Node| {
            node.metadata
                .annotations
                .as_ref()
                .is_some_and(|all| all.get(SIMULATED).is_some_and(|value| value == "true"))
        };
        self.nodes.filter(|node| !is_simulated(node)).iter().filter_map(|node| node.metadata.name.clone()).collect()
    }

    /// Answers a request.
    pub fn respond(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let answered = Query::of(request).and_then(|query| self.answer(&query));
        match answered {
            Ok(document) => response(200, &document),
            Err(status) => response(status.code, &status.to_json()),
        }
    }

    fn answer(&self, query: &Query) -> Result<Value, ApiStatus> {
        let mut rows = match query.what {
            What::Nodes => self.node_rows(query),
            What::Pods => self.pod_rows(query),
        };
        if !query.name.is_empty() && rows.is_empty() {
            return Err(self.not_found(query));
        }
        if let Form::Table(version, include) = query.form {
            return Ok(table(version, include, &rows));
        }
        let only_metadata = query.form == Form::Metadata;
        let shown = |row: Row| if only_metadata { metadata(&row.object) } else { row.object };
        if !query.name.is_empty() {
            return Ok(shown(rows.remove(0)));
        }
        let items: Vec<Value> = rows.into_iter().map(shown).collect();
        let (kind, api_version) = match (only_metadata, query.what) {
            (true, _) => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            (false, What::Nodes) => ("NodeMetricsList", format!("{GROUP}/{VERSION}")),
            (false, What::Pods) => ("PodMetricsList", format!("{GROUP}/{VERSION}")),
        };
        Ok(json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items}))
    }

    fn node_rows(&self, query: &Query) -> Vec<Row> {
        let points = self.points.read();
        let mut rows: Vec<Row> = Vec::new();
        for node in self.nodes.list() {
            let name = node.metadata.name.clone().unwrap_or_default();
            let labels = node.metadata.labels.clone().unwrap_or_default();
            if !query.wants("", &name, &labels) {
                continue;
            }
            let Some(usage) = points.node(&name) else { continue };
            let mut object = self.object("NodeMetrics", &name, "", &labels, &usage);
            object["usage"] = usage.json();
            rows.push(Row { name, cpu: usage.cpu, memory: usage.memory, window: usage.window, object });
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn pod_rows(&self, query: &Query) -> Vec<Row> {
        let points = self.points.read();
        let mut rows: Vec<(String, Row)> = Vec::new();
        let pods = if query.namespace.is_empty() { self.pods.list() } else { self.pods.in_namespace(&query.namespace) };
        for pod in pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
            if !runs || !query.wants(&namespace, &name, &labels) {
                continue;
            }
            let Some(containers) = points.pod(&namespace, &name) else { continue };
            // The oldest of its measurements is the pod's.
            let Some(oldest) = containers.iter().map(|(_, usage)| *usage).min_by_key(|usage| usage.time) else {
                continue;
            };
            let mut object = self.object("PodMetrics", &name, &namespace, &labels, &oldest);
            let list = containers.iter().map(|(name, usage)| json!({"name": name, "usage": usage.json()}));
            object["containers"] = list.collect();
            let (cpu, memory) = containers.iter().fold((0, 0), |sum, (_, u)| (sum.0 + u.cpu, sum.1 + u.memory));
            rows.push((namespace, Row { name, cpu, memory, window: oldest.window, object }));
        }
        rows.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn object(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
        labels: &std::collections::BTreeMap<String, String>,
        usage: &Usage,
    ) -> Value {
        let mut metadata = json!({"name": name, "creationTimestamp": format_time(self.clock.now())});
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        if !labels.is_empty() {
            metadata["labels"] = json!(labels);
        }
        json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
            "timestamp": format_time(usage.time), "window": duration_text(usage.window)})
    }

    /// Upstream's 404s: of the object itself, or of what was measured of it.
    fn not_found(&self, query: &Query) -> ApiStatus {
        let resource =
            |group: &str, resource: &str| GroupResource { group: group.to_owned(), resource: resource.to_owned() };
        match query.what {
            What::Nodes => ApiStatus::not_found(&resource(GROUP, "nodemetrics"), &query.name),
            What::Pods => {
                let name = format!("{}/{}", query.namespace, query.name);
                let key = kedge_meta::ObjectKey::new(&query.namespace, &query.name);
                match self.pods.get(&key) {
                    None => ApiStatus::not_found(&resource("", "pods"), &name),
                    Some(_) => ApiStatus::not_found(&resource(GROUP, "podmetrics"), &name),
                }
            }
        }
    }
}

fn response(code: u16, document: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kedge_meta::ManualClock;

    use super::*;
    use crate::exposition::parse;

    fn service() -> MetricsService {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "node-1", "labels": {"a": "b"}}})).unwrap();
        let pod = |name: &str, phase: &str| -> Pod {
            let metadata = json!({"name": name, "namespace": "default", "labels": {"app": name}});
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
        };
        let pods = [pod("web", "Running"), pod("new", "Running"), pod("over", "Succeeded")];
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1000).unwrap()));
        let service = MetricsService::new(Informer::fixed([node]), Informer::fixed(pods), clock);
        for (time, seconds) in [(100, 10), (120, 15)] {
            let container = |name: &str, bytes: u64| {
                let labels = format!("{{container=\"{name}\",namespace=\"default\",pod=\"web\"}}");
                format!(
                    "container_cpu_usage_seconds_total{labels} {seconds} {time}000\n\
                     container_memory_working_set_bytes{labels} {bytes} {time}000\n"
                )
            };
            let text = format!(
                "node_cpu_usage_seconds_total {seconds} {time}000\nnode_memory_working_set_bytes 1048576 {time}000\n{}{}",
                container("c", 2048),
                container("d", 1024)
            );
            service.points.write().take("node-1", &parse(&text, Timestamp::UNIX_EPOCH));
        }
        service
    }

    #[test]
    fn simulated_nodes_are_not_asked() {
        let node = |name: &str, annotations: Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
        };
        let nodes = [node("real", json!({SIMULATED: "false"})), node("sim-1", json!({SIMULATED: "true"}))];
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let service = MetricsService::new(Informer::fixed(nodes), Informer::fixed([]), clock);
        assert_eq!(service.node_names(), ["real"]);
    }

    fn get(path: &str, accept: &str) -> (u16, Value) {
        let uri = format!("/apis/metrics.k8s.io/v1beta1/{path}");
        let request = Request::builder().uri(uri).header("accept", accept).body(Bytes::new()).unwrap();
        let response = service().respond(&request);
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }

    #[test]
    fn objects_and_lists() {
        let (code, node) = get("nodes/node-1", "*/*");
        let expected = json!({"kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "node-1", "creationTimestamp": "1970-01-01T00:16:40Z", "labels": {"a": "b"}},
            "timestamp": "1970-01-01T00:02:00Z", "window": "20s", "usage": {"cpu": "250m", "memory": "1Mi"}});
        assert_eq!((code, node), (200, expected));
        let (_, pods) = get("namespaces/default/pods", "*/*");
        let items = pods["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "the others were not measured or do not run");
        let usage = json!({"cpu": "250m", "memory": "1Ki"});
        assert_eq!(items[0]["containers"][1], json!({"name": "d", "usage": usage}));
        assert_eq!(get("pods?labelSelector=app%3Dother", "*/*").1["items"], json!([]));
    }

    #[test]
    fn tables_sum_containers() {
        let (_, table) = get("pods", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
        assert_eq!(table["rows"][0]["cells"], json!(["web", "500m", "3Ki", "20s"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (path, message) in [
            ("nodes/other", "nodemetrics.metrics.k8s.io \"other\" not found"),
            ("namespaces/default/pods/new", "podmetrics.metrics.k8s.io \"default/new\" not found"),
            ("namespaces/default/pods/none", "pods \"default/none\" not found"),
        ] {
            let (code, status) = get(path, "*/*");
            assert_eq!((code, status["message"].as_str().unwrap()), (404, message));
        }
    }
}
