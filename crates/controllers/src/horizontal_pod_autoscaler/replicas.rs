//! How many replicas what was measured asks for.
//!
//! Pure. Invariants: pods that have no figures, or none that count yet, never turn the direction of a change nor make it
//! bigger; within the tolerance nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use kedge_meta::Quantity;

use crate::pods::{condition, is_ready, name_of, phase};

/// One figure of one pod, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PodMetric {
    pub(super) timestamp: Timestamp,
    pub(super) window: SignedDuration,
    pub(super) value: i64,
}

/// Figures by name of pod.
pub(super) type PodMetrics = BTreeMap<String, PodMetric>;

/// How far the ratio of what is to what should be may lie from 1 without any change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// With what replicas are computed.
#[derive(Debug, Clone)]
pub(super) struct Situation<'a> {
    pub(super) current: i32,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) tolerances: Tolerances,
    pub(super) cpu_initialization_period: Duration,
    pub(super) initial_readiness_delay: Duration,
    pub(super) now: Timestamp,
}

/// What a target and figures of pods come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Of what is requested, in percent, where that is what counts.
    pub(super) utilization: Option<i32>,
    /// For each pod, in thousandths.
    pub(super) usage: i64,
}

/// Pods by what their figures are good for; the rest of them counts.
#[derive(Debug, Default)]
struct Groups {
    counting: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn no_pods() -> String {
    "no pods returned by selector while calculating replica count".to_owned()
}

/// Replicas for a share of what pods request of a resource, in percent.
pub(super) fn by_utilization(
    situation: &Situation<'_>,
    metrics: PodMetrics,
    resource: &str,
    container: Option<&str>,
    target: i32,
) -> Result<Proposal, String> {
    let (metrics, groups) = sorted(situation, metrics, resource)?;
    let mut requests = BTreeMap::new();
    for pod in situation.pods {
        requests.insert(name_of(&pod.metadata).to_owned(), request(pod, container, resource)?);
    }
    let (ratio, utilization, usage) = utilization_ratio(&metrics, &requests, target)?;
    let fallback = i64::from(target.max(100));
    let assumed = |pod: &str| requests.get(pod).copied().unwrap_or_default() * fallback / 100;
    let again = |metrics: &PodMetrics| utilization_ratio(metrics, &requests, target).map(|(ratio, ..)| ratio);
    let replicas = settle(situation, metrics, &groups, ratio, assumed, again)?;
    Ok(Proposal { replicas, utilization: Some(utilization), usage })
}

/// Replicas for an amount that each pod should have; `resource` is empty for what is none.
pub(super) fn by_usage(
    situation: &Situation<'_>,
    metrics: PodMetrics,
    resource: &str,
    target: i64,
) -> Result<Proposal, String> {
    let (metrics, groups) = sorted(situation, metrics, resource)?;
    let (ratio, usage) = usage_ratio(&metrics, target);
    let again = |metrics: &PodMetrics| Ok(usage_ratio(metrics, target).0);
    let replicas = settle(situation, metrics, &groups, ratio, |_| target, again)?;
    Ok(Proposal { replicas, utilization: None, usage })
}

/// Replicas for one figure of the whole that grows with the load.
pub(super) fn by_value(situation: &Situation<'_>, usage: i64, target: i64) -> Result<Proposal, String> {
    let ratio = usage as f64 / target as f64;
    let replicas = if situation.current == 0 {
        ceiling(ratio)
    } else if situation.tolerances.covers(ratio) {
        situation.current
    } else {
        if situation.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {}", no_pods()));
        }
        let ready = situation.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count();
        ceiling(ratio * ready as f64)
    };
    Ok(Proposal { replicas, utilization: None, usage })
}

/// Replicas for one figure of the whole of which each pod should have a share; `status_replicas` is what there are.
pub(super) fn by_average(tolerances: Tolerances, status_replicas: i32, usage: i64, target: i64) -> Proposal {
    let ratio = usage as f64 / (target as f64 * f64::from(status_replicas));
    let replicas = match tolerances.covers(ratio) {
        true => status_replicas,
        false => ceiling(usage as f64 / target as f64),
    };
    let usage = (usage as f64 / f64::from(status_replicas)).ceil() as i64;
    Proposal { replicas, utilization: None, usage }
}

/// The figures that count, and what becomes of the other pods.
fn sorted(situation: &Situation<'_>, mut metrics: PodMetrics, resource: &str) -> Result<(PodMetrics, Groups), String> {
    if situation.pods.is_empty() {
        return Err(no_pods());
    }
    let groups = groups(situation, &metrics, resource);
    metrics.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    match metrics.is_empty() {
        true => Err("did not receive metrics for targeted pods (pods might be unready)".to_owned()),
        false => Ok((metrics, groups)),
    }
}

fn groups(situation: &Situation<'_>, metrics: &PodMetrics, resource: &str) -> Groups {
    let mut groups = Groups::default();
    for pod in situation.pods {
        let name = name_of(&pod.metadata).to_owned();
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(metric) = metrics.get(&name) {
            if resource == "cpu" && is_warming_up(situation, pod, metric) {
                groups.unready.insert(name);
            } else {
                groups.counting += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether a pod's CPU says more about its start than about its load.
fn is_warming_up(situation: &Situation<'_>, pod: &Pod, metric: &PodMetric) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_unready = ready.status == "False";
    match started + situation.cpu_initialization_period > situation.now {
        true => is_unready || metric.timestamp < changed + metric.window,
        false => is_unready && started + situation.initial_readiness_delay > changed,
    }
}

/// The replicas for a ratio: pods without figures, and unready ones where the load grew, count as what keeps the change
/// small.
fn settle(
    situation: &Situation<'_>,
    mut metrics: PodMetrics,
    groups: &Groups,
    ratio: f64,
    assumed: impl Fn(&str) -> i64,
    again: impl Fn(&PodMetrics) -> Result<f64, String>,
) -> Result<i32, String> {
    let (current, tolerances) = (situation.current, situation.tolerances);
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        return Ok(match tolerances.covers(ratio) {
            true => current,
            false => ceiling(ratio * groups.counting as f64),
        });
    }
    let figure = |value| PodMetric { timestamp: situation.now, window: SignedDuration::ZERO, value };
    for pod in groups.missing.iter().filter(|_| ratio != 1.0) {
        metrics.insert(pod.clone(), figure(if ratio < 1.0 { assumed(pod) } else { 0 }));
    }
    for pod in groups.unready.iter().filter(|_| grows_with_unready) {
        metrics.insert(pod.clone(), figure(0));
    }
    let new_ratio = again(&metrics)?;
    let turned = (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0);
    if tolerances.covers(new_ratio) || turned {
        return Ok(current);
    }
    let replicas = ceiling(new_ratio * metrics.len() as f64);
    let against = (new_ratio < 1.0 && replicas > current) || (new_ratio > 1.0 && replicas < current);
    Ok(if against { current } else { replicas })
}

/// Ratio to the target, utilization in percent, and mean usage.
fn utilization_ratio(
    metrics: &PodMetrics,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let (mut used, mut requested, mut entries) = (0i64, 0i64, 0i64);
    for (pod, metric) in metrics {
        if let Some(request) = requests.get(pod) {
            used = used.saturating_add(metric.value);
            requested = requested.saturating_add(*request);
            entries += 1;
        }
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i128::from(used) * 100 / i128::from(requested);
    let utilization = i32::try_from(percent).unwrap_or(i32::MAX);
    Ok((f64::from(utilization) / f64::from(target), utilization, used / entries))
}

fn usage_ratio(metrics: &PodMetrics, target: i64) -> (f64, i64) {
    let total: i128 = metrics.values().map(|metric| i128::from(metric.value)).sum();
    let usage = i64::try_from(total / metrics.len().max(1) as i128).unwrap_or(i64::MAX);
    (usage as f64 / target as f64, usage)
}

/// What a pod requests of a resource, in thousandths.
fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let name = name_of(&pod.metadata);
    let Some(spec) = &pod.spec else { return Ok(0) };
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some(requests) = of_pod.filter(|requests| container.is_none() && !requests.is_empty()) {
        return match requests.get(resource) {
            Some(amount) => Ok(millis(&amount.0)),
            None => Err(format!("missing pod-level request for {resource} in Pod {name}")),
        };
    }
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut sum = 0i64;
    for each in spec.containers.iter().chain(sidecars) {
        if container.is_none_or(|wanted| wanted == each.name) {
            let requests = each.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let Some(amount) = requests.and_then(|requests| requests.get(resource)) else {
                return Err(format!("missing request for {resource} in container {} of Pod {name}", each.name));
            };
            sum = sum.saturating_add(millis(&amount.0));
        }
        if container == Some(&each.name) {
            return Ok(sum);
        }
    }
    match container {
        Some(container) => Err(format!("container {container} not found in Pod {name}")),
        None => Ok(sum),
    }
}

/// Thousandths of a quantity that the API server has checked.
pub(super) fn millis(text: &str) -> i64 {
    text.parse::<Quantity>().map_or(0, Quantity::millis)
}

/// The next whole number, within what replicas can be.
fn ceiling(value: f64) -> i32 {
    value.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests;
