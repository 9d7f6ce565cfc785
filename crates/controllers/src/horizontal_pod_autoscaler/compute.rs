//! From the metrics of a specification to proposals: each is read, computed and reported.
//!
//! Invariants: the highest proposal wins; a metric that fails never lets another one scale down.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricStatus, HorizontalPodAutoscalerBehavior,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::{LabelSelector, Quantity};

use super::amounts;
use super::measure::Metrics;
use super::replicas::{Proposal, Situation, Tolerances, by_average, by_usage, by_utilization, by_value, millis};
use super::target::Kinds;

const INVALID_SOURCE: &str = "InvalidMetricSourceType";

/// What a metric proposes.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) replicas: i32,
    /// How it is called in events and conditions.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric proposes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Of the event and the condition.
    pub(super) reason: &'static str,
    /// What both say.
    pub(super) message: String,
    /// What the outcome says of it.
    pub(super) summary: String,
}

impl Failure {
    /// Whether the autoscaler says something that cannot be followed.
    pub(super) fn is_of_spec(&self) -> bool {
        self.reason == INVALID_SOURCE
    }
}

/// What all metrics of an autoscaler come to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Replicas and the metric that asks for them; `None` where nothing can be said.
    pub(super) wanted: Option<(i32, String)>,
    pub(super) statuses: Vec<MetricStatus>,
    pub(super) failures: Vec<Failure>,
}

impl Outcome {
    /// What went wrong, for the event.
    pub(super) fn error(&self) -> Option<String> {
        let first = self.failures.first()?;
        let all = self.statuses.len();
        Some(format!(
            "invalid metrics ({} invalid out of {all}), first error is: {}",
            self.failures.len(),
            first.summary
        ))
    }
}

/// The tolerances of an autoscaler.
pub(super) fn tolerances(usual: f64, behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Tolerances {
    let number = |amount: &ApiQuantity| amount.0.parse::<Quantity>().ok().map(|amount| amount.millis() as f64 / 1000.0);
    let down = behavior.and_then(|behavior| behavior.scale_down.as_ref()?.tolerance.as_ref());
    let up = behavior.and_then(|behavior| behavior.scale_up.as_ref()?.tolerance.as_ref());
    Tolerances { down: down.and_then(number).unwrap_or(usual), up: up.and_then(number).unwrap_or(usual) }
}

/// The highest of the proposals, unless what failed might have asked for more than there is.
pub(super) fn decide(current: i32, results: Vec<Result<Proposed, Failure>>) -> Outcome {
    let mut outcome = Outcome { wanted: None, statuses: Vec::new(), failures: Vec::new() };
    let (mut replicas, mut metric) = (0, String::new());
    for result in results {
        match result {
            Ok(proposed) => {
                if replicas == 0 || proposed.replicas > replicas {
                    (replicas, metric) = (proposed.replicas, proposed.name);
                }
                outcome.statuses.push(proposed.status);
            }
            Err(failure) => {
                // Each metric keeps its place; one that failed says nothing.
                outcome.statuses.push(MetricStatus::default());
                outcome.failures.push(failure);
            }
        }
    }
    let failed = outcome.failures.len();
    if failed < outcome.statuses.len() && (failed == 0 || replicas >= current) {
        outcome.wanted = Some((replicas, metric));
    }
    outcome
}

/// What proposals are computed from.
pub(super) struct Computation<'a> {
    pub(super) metrics: Metrics<'a>,
    pub(super) kinds: &'a Kinds,
    pub(super) situation: Situation<'a>,
    pub(super) status_replicas: i32,
    pub(super) selector: &'a LabelSelector,
}

type Part = Result<(Proposal, String, MetricStatus), (String, String)>;

impl Computation<'_> {
    /// What one metric proposes.
    pub(super) async fn propose(&self, spec: &MetricSpec) -> Result<Proposed, Failure> {
        let (reason, part) = match spec.type_.as_str() {
            "Resource" => ("FailedGetResourceMetric", self.resource(spec).await),
            "ContainerResource" => ("FailedGetContainerResourceMetric", self.container(spec).await),
            "Pods" => ("FailedGetPodsMetric", self.pods(spec).await),
            "Object" => ("FailedGetObjectMetric", self.object(spec).await),
            "External" => ("FailedGetExternalMetric", self.external(spec).await),
            other => {
                let text = format!("unknown metric source type {other:?}");
                (INVALID_SOURCE, Err((text.clone(), text)))
            }
        };
        match part {
            Ok((proposal, name, status)) => {
                let status = MetricStatus { type_: spec.type_.clone(), ..status };
                Ok(Proposed { replicas: proposal.replicas, name, status })
            }
            Err((message, summary)) => Err(Failure { reason, message, summary }),
        }
    }

    async fn resource(&self, spec: &MetricSpec) -> Part {
        let Some(source) = &spec.resource else { return missing("resource") };
        let (proposal, name, current) =
            self.of_resource(&source.name, None, &source.target).await.map_err(|message| {
                let summary = format!("failed to get {} resource metric value: {message}", source.name);
                (message, summary)
            })?;
        let status = ResourceMetricStatus { name: source.name.clone(), current };
        Ok((proposal, name, MetricStatus { resource: Some(status), ..MetricStatus::default() }))
    }

    async fn container(&self, spec: &MetricSpec) -> Part {
        let Some(source) = &spec.container_resource else { return missing("container resource") };
        let found = self.of_resource(&source.name, Some(&source.container), &source.target).await;
        let (proposal, name, current) = found.map_err(|message| {
            let summary = format!("failed to get {} container metric value: {message}", source.container);
            (message, summary)
        })?;
        let (container, name_of) = (source.container.clone(), source.name.clone());
        let status = ContainerResourceMetricStatus { container, name: name_of, current };
        Ok((proposal, name, MetricStatus { container_resource: Some(status), ..MetricStatus::default() }))
    }

    async fn of_resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(Proposal, String, MetricValueStatus), String> {
        let read = async || {
            let found = self.metrics.resource(resource, self.selector, container).await;
            found.map_err(|error| format!("unable to get metrics for resource {resource}: {error}"))
        };
        if let Some(amount) = &target.average_value {
            let failed = |error: String| format!("failed to get {resource} usage: {error}");
            let figures = read().await.map_err(failed)?;
            let proposal = by_usage(&self.situation, figures, resource, millis(&amount.0)).map_err(failed)?;
            let average_value = Some(amounts::of_resource(resource, proposal.usage));
            let current = MetricValueStatus { average_value, ..MetricValueStatus::default() };
            return Ok((proposal, format!("{resource} resource"), current));
        }
        let Some(percent) = target.average_utilization else {
            let text = "invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set";
            return Err(text.to_owned());
        };
        let failed = |error: String| format!("failed to get {resource} utilization: {error}");
        let figures = read().await.map_err(failed)?;
        let proposal = by_utilization(&self.situation, figures, resource, container, percent).map_err(failed)?;
        let part = if container.is_some() { "container resource" } else { "resource" };
        let current = MetricValueStatus {
            average_utilization: proposal.utilization,
            average_value: Some(amounts::of_resource(resource, proposal.usage)),
            value: None,
        };
        Ok((proposal, format!("{resource} {part} utilization (percentage of request)"), current))
    }

    async fn pods(&self, spec: &MetricSpec) -> Part {
        let Some(source) = &spec.pods else { return missing("pods") };
        let name = &source.metric.name;
        let target = source.target.average_value.as_ref().map_or(0, |amount| millis(&amount.0));
        let found = match self.metrics.pods(name, self.selector, source.metric.selector.as_ref()).await {
            Ok(figures) => by_usage(&self.situation, figures, "", target),
            Err(error) => Err(format!("unable to get metric {name}: {error}")),
        };
        let proposal = found.map_err(|message| {
            let summary = format!("failed to get pods metric value: {message}");
            (message, summary)
        })?;
        let current = average(proposal.usage);
        let status = PodsMetricStatus { metric: source.metric.clone(), current };
        Ok((proposal, format!("pods metric {name}"), MetricStatus { pods: Some(status), ..MetricStatus::default() }))
    }

    async fn object(&self, spec: &MetricSpec) -> Part {
        let Some(source) = &spec.object else { return missing("object") };
        let name = &source.metric.name;
        let described = &source.described_object;
        let summary = |error: &str| format!("failed to get object metric value: {error}");
        let failed = |message: String| {
            let summary = summary(&message);
            (message, summary)
        };
        let (proposal, title, current) = match (&source.target.value, &source.target.average_value) {
            (Some(amount), _) if source.target.type_ == "Value" => {
                let usage = self.of_object(&source.metric, described).await.map_err(failed)?;
                let proposal = by_value(&self.situation, usage, millis(&amount.0)).map_err(failed)?;
                (proposal, format!("{} metric {name}", described.kind), whole(proposal.usage))
            }
            (_, Some(amount)) if source.target.type_ == "AverageValue" => {
                let read = self.of_object(&source.metric, described).await;
                let usage = read.map_err(|message| {
                    let summary = summary(&format!("failed to get {name} object metric: {message}"));
                    (message, summary)
                })?;
                let proposal = by_average(self.situation.tolerances, self.status_replicas, usage, millis(&amount.0));
                (proposal, external_title(&source.metric), average(proposal.usage))
            }
            _ => {
                let text = "invalid object metric source: neither a value target nor an average value target was set";
                return Err(failed(text.to_owned()));
            }
        };
        let status = ObjectMetricStatus { current, described_object: described.clone(), metric: source.metric.clone() };
        Ok((proposal, title, MetricStatus { object: Some(status), ..MetricStatus::default() }))
    }

    async fn of_object(
        &self,
        metric: &MetricIdentifier,
        described: &CrossVersionObjectReference,
    ) -> Result<i64, String> {
        let version = described.api_version.as_deref().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let read = async {
            let resource = match (described.kind.as_str(), group) {
                ("Namespace", "") => None,
                (kind, group) => Some(self.kinds.resource_name(self.metrics.client, group, kind).await?),
            };
            self.metrics.object(&metric.name, resource.as_deref(), &described.name, metric.selector.as_ref()).await
        };
        read.await.map_err(|error| {
            let (kind, namespace, name) = (&described.kind, self.metrics.namespace, &described.name);
            format!("unable to get metric {}: {error} on {kind} {namespace}/{name}", metric.name)
        })
    }

    async fn external(&self, spec: &MetricSpec) -> Part {
        let Some(source) = &spec.external else { return missing("external") };
        let name = &source.metric.name;
        let failed = |message: String, inner: String| {
            let summary = format!("failed to get {name} external metric value: {inner}: {message}");
            (message, summary)
        };
        let read = || async {
            let usage = self.metrics.external(name, source.metric.selector.as_ref()).await;
            usage.map_err(|error| {
                let selector = selector_text(&source.metric);
                format!("unable to get external metric {}/{name}/{selector}: {error}", self.metrics.namespace)
            })
        };
        let (proposal, current) = match (&source.target.average_value, &source.target.value) {
            (Some(amount), _) => {
                let failed = |error| failed(error, format!("failed to get {name} external metric"));
                let usage = read().await.map_err(failed)?;
                let proposal = by_average(self.situation.tolerances, self.status_replicas, usage, millis(&amount.0));
                (proposal, average(proposal.usage))
            }
            (None, Some(amount)) => {
                let failed = |error| failed(error, format!("failed to get external metric {name}"));
                let usage = read().await.map_err(failed)?;
                let proposal = by_value(&self.situation, usage, millis(&amount.0)).map_err(failed)?;
                (proposal, whole(proposal.usage))
            }
            (None, None) => {
                let text = "invalid external metric source: neither a value target nor an average value target was set";
                return Err((text.to_owned(), format!("failed to get {name} external metric value: {text}")));
            }
        };
        let status = ExternalMetricStatus { current, metric: source.metric.clone() };
        let status = MetricStatus { external: Some(status), ..MetricStatus::default() };
        Ok((proposal, external_title(&source.metric), status))
    }
}

/// The API server refuses such a specification.
fn missing(what: &str) -> Part {
    let text = format!("invalid metric source: no {what} is named");
    Err((text.clone(), text))
}

fn average(usage: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(amounts::decimal(usage)), ..MetricValueStatus::default() }
}

fn whole(usage: i64) -> MetricValueStatus {
    MetricValueStatus { value: Some(amounts::decimal(usage)), ..MetricValueStatus::default() }
}

fn external_title(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, selector_text(metric))
}

/// A selector as Go prints one.
fn selector_text(metric: &MetricIdentifier) -> String {
    let Some(selector) = &metric.selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|each| {
        let values = each.values.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", each.key, each.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_never_lets_others_scale_down() {
        let good = |replicas: i32, name: &str| {
            Ok(Proposed { replicas, name: name.to_owned(), status: MetricStatus::default() })
        };
        let bad = || {
            Err(Failure {
                reason: "FailedGetResourceMetric",
                message: "no figures".to_owned(),
                summary: "failed to get cpu resource metric value: no figures".to_owned(),
            })
        };
        let wanted = |current, results| decide(current, results).wanted;
        assert_eq!(wanted(3, vec![good(2, "a"), good(5, "b"), good(5, "c")]), Some((5, "b".to_owned())));
        assert_eq!(wanted(3, vec![good(4, "a"), bad()]), Some((4, "a".to_owned())));
        assert_eq!(wanted(3, vec![bad(), good(3, "a")]), Some((3, "a".to_owned())));
        assert_eq!(wanted(3, vec![bad(), good(2, "a")]), None);
        assert_eq!(wanted(3, vec![bad()]), None);
        let outcome = decide(3, vec![good(4, "a"), bad()]);
        let text = "invalid metrics (1 invalid out of 2), first error is: failed to get cpu resource metric value: no \
                    figures";
        assert_eq!(outcome.error().as_deref(), Some(text));
        assert_eq!(outcome.statuses.len(), 2);
    }
}
