//! The HorizontalPodAutoscaler controller: replicas of whatever has a scale, by what metrics say.
//!
//! Not the source of any metric: it asks the metrics APIs. Invariants: replicas stay between the least and the most that
//! are allowed; a target of no replicas is left alone; nothing scales down on half the evidence.

mod amounts;
mod compute;
mod conditions;
mod config;
mod figures;
mod measure;
mod pace;
mod replicas;
mod target;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{ReconcileError, message_of, unless_gone};
use crate::metrics::Fault;
use crate::owners::selects;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use compute::{Computation, decide, tolerances};
use conditions::Said;
pub use config::AutoscalerConfig;
use measure::Metrics;
use pace::{Memory, Wish};
use replicas::Situation;
use target::{Kinds, Scale};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let controller = Autoscalers {
        context: starter.context.clone(),
        autoscalers: starter.informer(),
        pods: starter.informer(),
        kinds: Kinds::default(),
        memories: Mutex::default(),
        selectors: Mutex::default(),
    };
    let known = controller.autoscalers.clone();
    starter
        .context
        .metrics
        .show("horizontal-pod-autoscaler-controller", move |text| figures::write(text, &known.list()));
    let queue = Queue::new();
    // Status alone is no reason to look again before the period is over.
    starter.enqueue(&controller.autoscalers, &queue, |change| match change {
        Change::Updated { old, new } if old.spec == new.spec => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let workers = starter.context.config.autoscaler.concurrency;
    starter.work(Arc::new(controller), queue, workers);
}

struct Autoscalers {
    context: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    kinds: Kinds,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
    selectors: Mutex<HashMap<ObjectKey, LabelSelector>>,
}

impl Controller for Autoscalers {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memories.lock().remove(key);
            self.selectors.lock().remove(key);
            return Ok(Next::Done);
        };
        let mut turn = Turn::new(self, key, &autoscaler);
        let outcome = turn.run().await;
        let written = turn.write_status().await;
        turn.count(outcome.is_ok() && written.is_ok());
        written?;
        outcome?;
        Ok(Next::After(self.context.config.autoscaler.sync_period))
    }
}

/// One look at one autoscaler.
struct Turn<'a> {
    controller: &'a Autoscalers,
    key: &'a ObjectKey,
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    about: ObjectReference,
    now: Timestamp,
    conditions: Vec<HorizontalPodAutoscalerCondition>,
    /// Replicas as they are and should be, with the metrics; nothing until the target's scale is known.
    status: Option<(i32, i32, Vec<MetricStatus>)>,
    has_scaled: bool,
    fault: Fault,
    began: Instant,
}

impl<'a> Turn<'a> {
    fn new(controller: &'a Autoscalers, key: &'a ObjectKey, autoscaler: &'a HorizontalPodAutoscaler) -> Self {
        let conditions = autoscaler.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        Self {
            controller,
            key,
            autoscaler,
            spec: &autoscaler.spec,
            about: object_reference(autoscaler),
            now: controller.context.now(),
            conditions,
            status: None,
            has_scaled: false,
            fault: Fault::None,
            began: Instant::now(),
        }
    }

    fn say(&mut self, type_: &str, said: Said) {
        conditions::set(&mut self.conditions, type_, said, self.now);
    }

    fn warn(&self, reason: &str, message: &str) {
        self.controller.context.warning(&self.about, reason, message);
    }

    /// Counts the look.
    fn count(&self, is_good: bool) {
        let fault = if is_good { self.fault } else { Fault::Internal };
        let change = match &self.status {
            Some((from, to, _)) if self.has_scaled => (*from, *to),
            _ => (0, 0),
        };
        self.controller.context.metrics.autoscaler().reconciled(change, fault, self.began.elapsed());
    }

    fn desired_before(&self) -> i32 {
        self.autoscaler.status.as_ref().map_or(0, |status| status.desired_replicas)
    }

    async fn run(&mut self) -> Result<(), ReconcileError> {
        let client = &self.controller.context.client;
        let scale = match self.controller.kinds.scale(client, &self.key.namespace, &self.spec.scale_target_ref).await {
            Ok(scale) => scale,
            Err(error) => {
                self.fault = Fault::Internal;
                self.warn("FailedGetScale", &error);
                let text = format!("the HPA controller was unable to get the target's current scale: {error}");
                self.say("AbleToScale", Said::new(false, "FailedGetScale", text));
                return Ok(());
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.say("AbleToScale", Said::new(true, "SucceededGetScale", text));
        let (current, least, most) = (scale.replicas(), self.spec.min_replicas.unwrap_or(1), self.spec.max_replicas);
        self.controller.memories.lock().entry(self.key.clone()).or_default().begin(current, self.now);
        let (desired, reason) = if current == 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.say("ScalingActive", Said::new(false, "ScalingDisabled", text));
            (0, String::new())
        } else if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.by_metrics(&scale, Wish { current, desired: 0, least, most }).await {
                Some(found) => found,
                None => return Ok(()),
            }
        };
        let metrics = self.status.take().map(|(_, _, metrics)| metrics).unwrap_or_default();
        self.status = Some((current, desired, metrics));
        match desired == current {
            true => Ok(()),
            false => self.rescale(scale, current, desired, &reason).await,
        }
    }

    async fn rescale(&mut self, scale: Scale, from: i32, to: i32, reason: &str) -> Result<(), ReconcileError> {
        if let Err(error) = scale.set(to).await {
            let text = message_of(&error);
            self.warn("FailedRescale", &format!("New size: {to}; reason: {reason}; error: {text}"));
            let text = format!("the HPA controller was unable to update the target scale: {text}");
            self.say("AbleToScale", Said::new(false, "FailedUpdateScale", text));
            if let Some(status) = &mut self.status {
                status.1 = self.autoscaler.status.as_ref().map_or(0, |status| status.desired_replicas);
            }
            return Err(error.into());
        }
        let text = format!("the HPA controller was able to update the target scale to {to}");
        self.say("AbleToScale", Said::new(true, "SucceededRescale", text));
        let text = format!("New size: {to}; reason: {reason}");
        self.controller.context.normal(&self.about, "SuccessfulRescale", text);
        let mut memories = self.controller.memories.lock();
        memories.entry(self.key.clone()).or_default().changed(self.spec.behavior.as_ref(), from, to, self.now);
        self.has_scaled = true;
        Ok(())
    }

    /// Replicas by metrics, with the reason for a change; `None` where nothing can be said.
    async fn by_metrics(&mut self, scale: &Scale, wish: Wish) -> Option<(i32, String)> {
        self.status = Some((wish.current, self.desired_before(), Vec::new()));
        let selector = match self.selector(scale.selector()) {
            Ok(selector) => selector,
            Err(error) => {
                self.fault = Fault::Internal;
                self.warn("FailedComputeMetricsReplicas", &error);
                return None;
            }
        };
        let outcome = self.compute(scale, &selector).await;
        let error = outcome.error();
        if !outcome.failures.is_empty() {
            self.fault = Fault::Internal;
        }
        for failure in &outcome.failures {
            self.warn(failure.reason, &failure.message);
        }
        let Some((desired, metric)) = outcome.wanted.clone() else {
            if let Some(first) = outcome.failures.first() {
                let text = format!("the HPA was unable to compute the replica count: {}", first.message);
                self.say("ScalingActive", Said::new(false, first.reason, text));
            }
            self.warn("FailedComputeMetricsReplicas", error.as_deref().unwrap_or_default());
            self.status = Some((wish.current, self.desired_before(), outcome.statuses));
            return None;
        };
        let text = format!("the HPA was able to successfully calculate a replica count from {metric}");
        self.say("ScalingActive", Said::new(true, "ValidMetricFound", text));
        // Where the metrics ask for no change, upstream names no reason either.
        let reason = match desired.cmp(&wish.current) {
            Ordering::Greater => format!("{metric} above target"),
            Ordering::Less => "All metrics below target".to_owned(),
            Ordering::Equal => String::new(),
        };
        self.status = Some((wish.current, desired, outcome.statuses));
        let window = self.controller.context.config.autoscaler.downscale_stabilization;
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        let behavior = self.spec.behavior.as_ref();
        let normalized = {
            let mut memories = self.controller.memories.lock();
            let memory = memories.entry(self.key.clone()).or_default();
            memory.normalize(behavior, Wish { desired, ..wish }, window, self.now)
        };
        self.say("AbleToScale", normalized.able);
        self.say("ScalingLimited", normalized.limited);
        Some((normalized.replicas, reason))
    }

    async fn compute(&self, scale: &Scale, selector: &LabelSelector) -> compute::Outcome {
        let controller = self.controller;
        let config = &controller.context.config.autoscaler;
        let pods = self.pods(selector);
        let computation = Computation {
            metrics: Metrics { client: &controller.context.client, namespace: &self.key.namespace },
            kinds: &controller.kinds,
            situation: Situation {
                current: scale.replicas(),
                pods: &pods,
                tolerances: tolerances(config.tolerance, self.spec.behavior.as_ref()),
                cpu_initialization_period: config.cpu_initialization_period,
                initial_readiness_delay: config.initial_readiness_delay,
                now: self.now,
            },
            status_replicas: scale.status_replicas(),
            selector,
        };
        let mut results = Vec::new();
        for spec in self.spec.metrics.iter().flatten() {
            let began = Instant::now();
            let proposed = computation.propose(spec).await;
            let (to, fault) = match &proposed {
                Ok(proposed) => (proposed.replicas, Fault::None),
                Err(failure) if failure.is_of_spec() => (scale.replicas(), Fault::Spec),
                Err(_) => (scale.replicas(), Fault::Internal),
            };
            let metrics = controller.context.metrics.autoscaler();
            metrics.computed(&spec.type_, (scale.replicas(), to), fault, began.elapsed());
            results.push(proposed);
        }
        decide(scale.replicas(), results)
    }

    fn pods(&self, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        self.controller.pods.filter_in(&self.key.namespace, |pod| selects(selector, &pod.metadata))
    }

    /// The selector of the target's pods, which must be nobody else's.
    fn selector(&mut self, text: &str) -> Result<LabelSelector, String> {
        if text.is_empty() {
            self.warn("SelectorRequired", "selector is required");
            let text = "the HPA target's scale is missing a selector";
            self.say("ScalingActive", Said::new(false, "InvalidSelector", text));
            return Err("selector is required".to_owned());
        }
        let selector = LabelSelector::parse(text).map_err(|error| {
            let text = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.warn("InvalidSelector", &text);
            self.say("ScalingActive", Said::new(false, "InvalidSelector", text.clone()));
            text
        })?;
        let pods = self.pods(&selector);
        let mut selectors = self.controller.selectors.lock();
        selectors.insert(self.key.clone(), selector.clone());
        let rivals = rivals(self.key, &pods, &selectors);
        drop(selectors);
        if rivals.len() > 1 {
            let text = format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            self.warn("AmbiguousSelector", &text);
            self.say("ScalingActive", Said::new(false, "AmbiguousSelector", text.clone()));
            return Err(text);
        }
        Ok(selector)
    }

    /// Writes the status where it changed.
    async fn write_status(&self) -> Result<(), ReconcileError> {
        let mut status = self.autoscaler.status.clone().unwrap_or_default();
        if let Some((current, desired, metrics)) = &self.status {
            status.current_replicas = Some(*current);
            status.desired_replicas = *desired;
            status.current_metrics = Some(metrics.clone());
        }
        if self.has_scaled {
            status.last_scale_time = Some(Time(self.now));
        }
        status.conditions = Some(self.conditions.clone());
        if is_same(self.autoscaler.status.as_ref(), &status) {
            return Ok(());
        }
        let changed = HorizontalPodAutoscaler { status: Some(status), ..self.autoscaler.clone() };
        let client = self.controller.context.client.clone();
        let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client, &self.key.namespace);
        let written = autoscalers.replace_status(&self.key.name, &PostParams::default(), &changed).await;
        if let Err(error) = unless_gone(written) {
            self.warn("FailedUpdateStatus", &message_of(&error));
            return Err(error.into());
        }
        Ok(())
    }
}

/// Whether two statuses say the same; an empty list says as little as none.
fn is_same(before: Option<&HorizontalPodAutoscalerStatus>, after: &HorizontalPodAutoscalerStatus) -> bool {
    let plain = |status: &HorizontalPodAutoscalerStatus| HorizontalPodAutoscalerStatus {
        current_metrics: status.current_metrics.clone().filter(|metrics| !metrics.is_empty()),
        current_replicas: Some(status.current_replicas.unwrap_or(0)),
        ..status.clone()
    };
    before.is_some_and(|before| plain(before) == plain(after))
}

/// The autoscalers of the same namespace whose targets' selectors select any of these pods, as upstream prints them.
fn rivals(key: &ObjectKey, pods: &[Arc<Pod>], selectors: &HashMap<ObjectKey, LabelSelector>) -> Vec<String> {
    let of_namespace = selectors.iter().filter(|(other, _)| other.namespace == key.namespace);
    let selecting = of_namespace.filter(|(_, selector)| pods.iter().any(|pod| selects(selector, &pod.metadata)));
    let mut rivals: Vec<String> =
        selecting.map(|(other, _)| format!("{{{} {}}}", other.name, other.namespace)).collect();
    rivals.sort();
    rivals
}
