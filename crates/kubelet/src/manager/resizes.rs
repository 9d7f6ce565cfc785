//! Which resizes are granted: decided here, where all pods of the node are known, and carried out by the workers.
//!
//! Invariant: what was granted to all pods together is never more than the node has.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::EventType;

use super::Manager;
use crate::allocation::ResizeNote;
use crate::resize::{event_text, judge};
use crate::resources;
use crate::spec;

impl Manager {
    /// Looks at a pod's wish; its worker is woken where there is news.
    pub(super) fn consider_resize(&self, pod: &Arc<Pod>) {
        let uid = spec::uid(pod);
        let allocations = &self.agent.allocations;
        if spec::is_static(pod) || !allocations.knows(uid) {
            return;
        }
        let generation = pod.metadata.generation;
        let wanted = Arc::ptr_eq(&allocations.granted(pod), pod);
        let news = if wanted {
            allocations.set_state(uid, |state| state.pending = None)
        } else {
            match self.judge_resize(pod) {
                Ok(()) => {
                    allocations.grant(pod);
                    allocations.set_state(uid, |state| {
                        state.pending = None;
                        state.in_progress = Some(ResizeNote { generation, ..ResizeNote::default() });
                    });
                    let text = event_text("Pod resize started", pod, generation, "");
                    self.agent.events.pod(pod, EventType::Normal, "ResizeStarted", text);
                    true
                }
                Err(note) => self.refuse_resize(pod, note),
            }
        };
        if news && let Some(worker) = self.workers.get(uid) {
            worker.wake.notify_one();
        }
    }

    fn judge_resize(&self, pod: &Pod) -> Result<(), ResizeNote> {
        let others: Vec<Arc<Pod>> =
            self.active_pods().into_iter().filter(|other| spec::uid(other) != spec::uid(pod)).collect();
        let others: Vec<&Pod> = others.iter().map(Arc::as_ref).collect();
        judge(pod, &others, &self.room()).map_err(|refusal| ResizeNote {
            reason: refusal.reason.to_owned(),
            message: refusal.message,
            generation: pod.metadata.generation,
        })
    }

    fn refuse_resize(&self, pod: &Pod, note: ResizeNote) -> bool {
        let (reason, message) = (note.reason.clone(), note.message.clone());
        let news = self.agent.allocations.set_state(spec::uid(pod), |state| state.pending = Some(note));
        if news {
            let text = event_text(&format!("Pod resize {reason}"), pod, pod.metadata.generation, &message);
            self.agent.events.pod(pod, EventType::Warning, &format!("Resize{reason}"), text);
        }
        news
    }

    /// Room may have become free: deferred resizes are looked at again, the most important first.
    // DIVERGES: upstream waits 3 minutes where no pod ends; housekeeping comes here every 10 seconds.
    pub(super) fn reconsider_resizes(&self) {
        let pods = self.workers.values().map(|worker| worker.desired.borrow().pod.clone());
        let deferred = |pod: &Arc<Pod>| {
            let pending = self.agent.allocations.state(spec::uid(pod)).pending;
            pending.is_some_and(|note| note.reason == "Deferred")
        };
        let mut waiting: Vec<Arc<Pod>> = pods.filter(deferred).collect();
        waiting.sort_by_key(|pod| order(pod, &self.agent.allocations.granted(pod)));
        for pod in waiting {
            self.consider_resize(&pod);
        }
    }
}

/// First those that ask for less, then by priority, then guaranteed pods.
fn order(pod: &Pod, granted: &Pod) -> (bool, i32, bool) {
    let more = ["cpu", "memory"]
        .iter()
        .any(|resource| resources::pod_request(pod, resource) > resources::pod_request(granted, resource));
    let priority = spec::pod_spec(pod).priority.unwrap_or(0);
    (more, priority.saturating_neg(), resources::qos_class(pod) != resources::QosClass::Guaranteed)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn pod(cpu: &str, priority: i32) -> Pod {
        let requests = [("cpu".to_owned(), Quantity(cpu.to_owned()))].into();
        let resources = ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() };
        let container = Container { resources: Some(resources), ..Container::default() };
        let spec = PodSpec { containers: vec![container], priority: Some(priority), ..PodSpec::default() };
        Pod { spec: Some(spec), ..Pod::default() }
    }

    #[test]
    fn smaller_wishes_and_important_pods_come_first() {
        let granted = pod("1", 0);
        let mut wishes = [pod("3", 0), pod("2", 10), pod("500m", 0)];
        wishes.sort_by_key(|wish| order(wish, &granted));
        let cpu: Vec<i64> = wishes.iter().map(|wish| resources::pod_request(wish, "cpu")).collect();
        assert_eq!(cpu, [500, 2000, 3000]);
    }
}
