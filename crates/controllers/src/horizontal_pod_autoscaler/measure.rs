//! What the metrics APIs say: of resources, of objects of the cluster, of things outside of it.
//!
//! Invariant: an answer without figures is a failure, in upstream's words.

use std::collections::BTreeMap;

use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use kedge_client::{Client, label_selector};
use kedge_meta::LabelSelector;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::replicas::{PodMetric, PodMetrics, millis};
use crate::error::message_of;

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct OfPod {
    metadata: Named,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<OfContainer>,
}

#[derive(Deserialize)]
struct OfContainer {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfObject {
    described_object: Named,
    timestamp: Timestamp,
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
struct OfOutside {
    value: String,
}

/// Asks the metrics APIs as the autoscaler may.
pub(super) struct Metrics<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
}

impl Metrics<'_> {
    /// Use of a resource by pods, or by one container of each.
    pub(super) async fn resource(
        &self,
        resource: &str,
        selector: &LabelSelector,
        container: Option<&str>,
    ) -> Result<PodMetrics, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", self.namespace);
        let asked = [("labelSelector", selector.to_string())];
        let list: List<OfPod> = get(self.client, &path, &asked, "get pods.metrics.k8s.io")
            .await
            .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
        if list.items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        Ok(list.items.into_iter().filter_map(|pod| of_pod(pod, resource, container)).collect())
    }

    /// A custom metric of each pod.
    pub(super) async fn pods(
        &self,
        metric: &str,
        selector: &LabelSelector,
        of: Option<&ApiSelector>,
    ) -> Result<PodMetrics, String> {
        let failed = |error: String| format!("unable to fetch metrics from custom metrics API: {error}");
        let version = self.custom_version().await.map_err(failed)?;
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{}/pods/*/{metric}", self.namespace);
        let asked = [("labelSelector", selector.to_string()), ("metricLabelSelector", labels_of(of))];
        let what = format!("get pods.{CUSTOM} *");
        let list: List<OfObject> = get(self.client, &path, &asked, &what).await.map_err(failed)?;
        if list.items.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let figure = |item: OfObject| {
            let window = SignedDuration::from_secs(item.window_seconds.unwrap_or(60));
            let metric = PodMetric { timestamp: item.timestamp, window, value: millis(&item.value) };
            (item.described_object.name, metric)
        };
        Ok(list.items.into_iter().map(figure).collect())
    }

    /// A custom metric of one object; `resource` is `None` for the namespace itself.
    pub(super) async fn object(
        &self,
        metric: &str,
        resource: Option<&str>,
        name: &str,
        of: Option<&ApiSelector>,
    ) -> Result<i64, String> {
        let failed = |error: String| format!("unable to fetch metrics from custom metrics API: {error}");
        let version = self.custom_version().await.map_err(failed)?;
        let (object, what) = match resource {
            Some(resource) => (format!("{resource}/{name}"), format!("get {resource}.{CUSTOM} {name}")),
            None => ("metrics".to_owned(), format!("get metrics.{CUSTOM} {metric}")),
        };
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{}/{object}/{metric}", self.namespace);
        let asked = [("metricLabelSelector", labels_of(of))];
        let list: List<OfObject> = get(self.client, &path, &asked, &what).await.map_err(failed)?;
        match list.items.as_slice() {
            [item] => Ok(millis(&item.value)),
            items => Err(failed(format!(
                "the custom metrics API server returned {} results when we asked for exactly one",
                items.len()
            ))),
        }
    }

    /// The sum of an external metric.
    pub(super) async fn external(&self, metric: &str, of: Option<&ApiSelector>) -> Result<i64, String> {
        let path = format!("/apis/{EXTERNAL}/v1beta1/namespaces/{}/{metric}", self.namespace);
        let asked = [("labelSelector", labels_of(of))];
        let what = format!("get {metric}.{EXTERNAL}");
        let list: List<OfOutside> = get(self.client, &path, &asked, &what)
            .await
            .map_err(|error| format!("unable to fetch metrics from external metrics API: {error}"))?;
        if list.items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        Ok(list.items.iter().fold(0, |sum: i64, item| sum.saturating_add(millis(&item.value))))
    }

    /// The newest version of the custom metrics API that is served and known here.
    async fn custom_version(&self) -> Result<&'static str, String> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        #[derive(Deserialize)]
        struct Group {
            #[serde(default)]
            versions: Vec<Version>,
        }
        let missing = || format!("no custom metrics API ({CUSTOM}) registered");
        let path = format!("/apis/{CUSTOM}");
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let group: Group = match self.client.request(request).await {
            Ok(group) => group,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(missing()),
            Err(error) => return Err(message_of(&error)),
        };
        let serves = |version: &&str| group.versions.iter().any(|served| served.version == *version);
        let known = ["v1beta2", "v1beta1"];
        known.into_iter().find(serves).ok_or_else(|| "no known available metric versions found".to_owned())
    }
}

fn of_pod(pod: OfPod, resource: &str, container: Option<&str>) -> Option<(String, PodMetric)> {
    let value = match container {
        Some(container) => millis(pod.containers.iter().find(|each| each.name == container)?.usage.get(resource)?),
        None if pod.containers.is_empty() => return None,
        None => {
            pod.containers.iter().map(|each| each.usage.get(resource).map(|used| millis(used))).sum::<Option<i64>>()?
        }
    };
    let window = pod.window.parse().unwrap_or(SignedDuration::ZERO);
    Some((pod.metadata.name, PodMetric { timestamp: pod.timestamp, window, value }))
}

fn labels_of(selector: Option<&ApiSelector>) -> String {
    label_selector(selector).map(|selector| selector.to_string()).unwrap_or_default()
}

/// Asks; an API that is not there or down is named as upstream's client does.
async fn get<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    asked: &[(&str, String)],
    what: &str,
) -> Result<T, String> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(asked.iter().filter(|(_, value)| !value.is_empty()))
        .finish();
    let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let request = Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
    client.request(request).await.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 && is_about_no_object(status) => {
            format!("the server could not find the requested resource ({what})")
        }
        kube::Error::Api(status) if status.code == 503 => {
            format!("the server is currently unable to handle the request ({what})")
        }
        error => message_of(error),
    })
}

/// Whether an answer says that nobody serves such a path, rather than that an object is missing.
fn is_about_no_object(status: &kube::core::Status) -> bool {
    status.details.is_none() || status.message == "the server could not find the requested resource"
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::Response;
    use kedge_client::client_from_service;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// An API that serves a version of the custom metrics API and remembers what it was asked.
    fn serving(version: &'static str, items: Value) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let client = client_from_service(service_fn(move |request: Request<Body>| {
            let uri = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let uri = uri.trim_end_matches('?').to_owned();
            let body = match uri.matches('/').count() {
                2 => json!({ "kind": "APIGroup", "versions": [{ "version": version }] }),
                _ => json!({ "kind": "MetricValueList", "items": items }),
            };
            log.lock().push(uri);
            async move { Ok::<_, Infallible>(Response::new(Body::from(body.to_string().into_bytes()))) }
        }));
        (client, asked)
    }

    #[tokio::test]
    async fn custom_metrics_are_asked_for_by_upstreams_paths() {
        let item = |name: &str, value: &str| {
            json!({ "describedObject": { "kind": "Pod", "name": name }, "timestamp": "2026-11-21T20:00:00Z",
                "value": value, "metric": { "name": "qps" } })
        };
        let selector = LabelSelector::parse("app=web").unwrap();
        let of: ApiSelector = serde_json::from_value(json!({ "matchLabels": { "verb": "GET" } })).unwrap();
        let (client, asked) = serving("v1beta2", json!([item("a", "1500m"), item("b", "2")]));
        let metrics = Metrics { client: &client, namespace: "default" };
        let figures = metrics.pods("qps", &selector, Some(&of)).await.unwrap();
        let values: Vec<(&str, i64)> = figures.iter().map(|(pod, metric)| (pod.as_str(), metric.value)).collect();
        assert_eq!(values, [("a", 1500), ("b", 2000)]);
        assert_eq!(figures["a"].window, SignedDuration::from_secs(60));
        let error = metrics.object("qps", Some("services"), "web", None).await.unwrap_err();
        let text = "unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results \
                    when we asked for exactly one";
        assert_eq!(error, text);
        let group = "/apis/custom.metrics.k8s.io";
        let path = format!("{group}/v1beta2/namespaces/default");
        let query = "labelSelector=app%3Dweb&metricLabelSelector=verb%3DGET";
        let expected = [
            group.to_owned(),
            format!("{path}/pods/*/qps?{query}"),
            group.to_owned(),
            format!("{path}/services/web/qps"),
        ];
        assert_eq!(*asked.lock(), expected);

        let (client, asked) = serving("v1beta1", json!([item("default", "3")]));
        let metrics = Metrics { client: &client, namespace: "default" };
        assert_eq!(metrics.object("qps", None, "default", None).await, Ok(3000));
        assert_eq!(asked.lock()[1], format!("{group}/v1beta1/namespaces/default/metrics/qps"));
        let (client, _) = serving("v2", json!([]));
        let metrics = Metrics { client: &client, namespace: "default" };
        let error = metrics.object("qps", None, "default", None).await.unwrap_err();
        assert_eq!(error, "unable to fetch metrics from custom metrics API: no known available metric versions found");
    }

    #[test]
    fn a_pod_counts_where_every_container_has_a_figure() {
        let check = |containers: Value, container: Option<&str>, expected: Option<i64>| {
            let pod = json!({ "metadata": { "name": "web" }, "timestamp": "2026-11-21T20:00:00Z", "window": "12.5s",
                "containers": containers });
            let pod: OfPod = serde_json::from_value(pod).unwrap();
            let found = of_pod(pod, "cpu", container);
            assert_eq!(found.as_ref().map(|(_, metric)| metric.value), expected);
            if let Some((name, metric)) = found {
                assert_eq!((name.as_str(), metric.window), ("web", SignedDuration::from_millis(12_500)));
            }
        };
        let one = json!({ "name": "a", "usage": { "cpu": "150m", "memory": "1Mi" } });
        let other = json!({ "name": "b", "usage": { "cpu": "1" } });
        let none = json!({ "name": "c", "usage": { "memory": "1Mi" } });
        check(json!([one, other]), None, Some(1150));
        check(json!([one, other]), Some("b"), Some(1000));
        check(json!([one, none]), None, None);
        check(json!([one, none]), Some("c"), None);
        check(json!([one]), Some("b"), None);
        check(json!([]), None, None);
    }
}
