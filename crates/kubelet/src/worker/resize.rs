//! Carrying out what `resize.rs` planned: pod cgroup, then containers, or the other way round where limits go down.
//!
//! Invariant: what is recorded as in force was taken by the runtime; after a failure the rest is tried again, and the
//! condition says why it is late.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_client::EventType;
use kedge_cri::v1;

use super::Worker;
use crate::allocation::ResizeNote;
use crate::cgroups::{PodLimits, raises};
use crate::resize::{Amounts, ContainerUpdate, ResizePlan, event_text, plan_resize};
use crate::resources;
use crate::runtime_state::PodRuntime;
use crate::spec;

/// How long until a resize that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Worker {
    pub(super) fn resize_plan(&self, runtime: &PodRuntime) -> ResizePlan {
        plan_resize(&self.pod, runtime, &self.agent.allocations.actuated(self.uid()))
    }

    /// One round of a resize.
    pub(super) async fn resize(&mut self) -> Result<(), Duration> {
        let runtime = self.agent.states.get(self.uid());
        let plan = self.resize_plan(&runtime);
        let Err(error) = self.carry_out(&plan).await else { return Ok(()) };
        tracing::warn!(pod = spec::format_pod(&self.pod), error, "failed to resize a pod in place");
        let generation = self.pod.metadata.generation;
        let news = self.agent.allocations.set_state(self.uid(), |state| {
            let generation = state.in_progress.as_ref().and_then(|note| note.generation).or(generation);
            state.in_progress = Some(ResizeNote { reason: "Error".to_owned(), message: error.clone(), generation });
        });
        if news {
            let text = event_text("Pod resize error", &self.pod, generation, &error);
            self.agent.events.pod(&self.pod, EventType::Warning, "ResizeError", text);
        }
        Err(RETRY)
    }

    async fn carry_out(&self, plan: &ResizePlan) -> Result<(), String> {
        let cgroups = &self.agent.cgroups;
        let limits = resources::pod_resources(&self.pod);
        let current = cgroups.pod_limits(&self.pod);
        let wanted = current.map(|current| current.wanted(&limits));
        let (now, then) = (current.unwrap_or_default(), wanted.unwrap_or_default());
        self.check_memory(plan, now, then)?;
        let written =
            |result: std::io::Result<()>| result.map_err(|error| format!("failed to set cgroup config: {error}"));
        let memory = || written(then.memory.map_or(Ok(()), |limit| cgroups.write_memory(&self.pod, limit)));
        let quota = || {
            let write = |quota| cgroups.write_cpu_quota(&self.pod, quota, limits.cpu_period);
            written(then.cpu_quota.map_or(Ok(()), write))
        };
        if raises(now.memory, then.memory) {
            memory()?;
        }
        for update in &plan.memory {
            let step = Amounts { cpu_request: update.from.cpu_request, cpu_limit: update.from.cpu_limit, ..update.to };
            self.update(update, step).await?;
        }
        if now.memory != then.memory && !raises(now.memory, then.memory) {
            memory()?;
        }
        if raises(now.cpu_quota, then.cpu_quota) {
            quota()?;
        }
        if current.is_some() {
            written(cgroups.write_cpu_shares(&self.pod, limits.cpu_shares))?;
        }
        for update in &plan.cpu {
            self.update(update, update.to).await?;
        }
        if now.cpu_quota != then.cpu_quota && !raises(now.cpu_quota, then.cpu_quota) {
            quota()?;
        }
        self.agent.allocations.set_pod_actuated(&self.pod);
        Ok(())
    }

    /// A memory limit never goes below what is in use.
    fn check_memory(&self, plan: &ResizePlan, now: PodLimits, then: PodLimits) -> Result<(), String> {
        let mut errors = Vec::new();
        let beyond = |limit: i64, used: Option<u64>| used.filter(|used| i128::from(*used) >= i128::from(limit));
        if let Some(limit) = then.memory.filter(|_| now.memory != then.memory && !raises(now.memory, then.memory))
            && let Some(used) = beyond(limit, self.agent.cgroups.memory_in_use(&self.pod, None))
        {
            errors.push(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
        }
        for update in &plan.memory {
            let limit = update.to.memory_limit;
            let lower = limit > 0 && (update.from.memory_limit == 0 || limit < update.from.memory_limit);
            let used = self.agent.cgroups.memory_in_use(&self.pod, Some(&update.container_id));
            if let Some(used) = beyond(limit, used).filter(|_| lower) {
                let name = &update.name;
                errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            // As Go prints several errors.
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    async fn update(&self, update: &ContainerUpdate, step: Amounts) -> Result<(), String> {
        let Some(container) = spec::find_container(&self.pod, &update.name) else { return Ok(()) };
        let mut changed = Container { resources: Some(requirements(step)), ..container.clone() };
        let linux = resources::container_resources(&self.pod, &changed, self.agent.machine.memory_bytes);
        let request = v1::UpdateContainerResourcesRequest {
            container_id: update.container_id.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        self.agent.runtime.update_container_resources(request).await.map_err(|error| error.to_string())?;
        if step == update.to {
            changed.resources = container.resources;
        }
        self.agent.allocations.set_actuated(&self.pod, &changed);
        if let Err(error) = self.agent.states.reread(self.uid(), &update.container_id).await {
            tracing::debug!(container = update.name, %error, "a resized container's limits cannot be read back");
        }
        Ok(())
    }

    /// Clears the condition of a resize that is in force everywhere, or sets the one of a resize that is not.
    pub(super) fn note_resize(&self) {
        let plan = self.resize_plan(&self.agent.states.get(self.uid()));
        let generation = self.pod.metadata.generation;
        let mut done = None;
        self.agent.allocations.set_state(self.uid(), |state| {
            if plan.is_empty() {
                done = state.in_progress.take();
            } else if state.in_progress.is_none() {
                state.in_progress = Some(ResizeNote { generation, ..ResizeNote::default() });
            }
        });
        if let Some(done) = done {
            let text = event_text("Pod resize completed", &self.pod, done.generation, "");
            self.agent.events.pod(&self.pod, EventType::Normal, "ResizeCompleted", text);
        }
    }
}

fn requirements(amounts: Amounts) -> ResourceRequirements {
    let list = |cpu: i64, memory: i64| {
        let entries = [("cpu", cpu, format!("{cpu}m")), ("memory", memory, memory.to_string())];
        let set = entries.into_iter().filter(|(_, amount, _)| *amount > 0);
        Some(set.map(|(name, _, text)| (name.to_owned(), ApiQuantity(text))).collect())
    };
    ResourceRequirements {
        requests: list(amounts.cpu_request, amounts.memory_request),
        limits: list(amounts.cpu_limit, amounts.memory_limit),
        claims: None,
    }
}
