//! The pressures the node is under, shared by those who report them, who admit pods, and who count.
//!
//! Invariant: what is read is what the last look at the node found.

use k8s_openapi::api::core::v1::{Pod, Toleration};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::{REASON, had_condition};
use super::rank::is_critical;
use super::threshold::Pressure;
use crate::resources::{QosClass, qos_class};
use crate::spec;
use crate::status::Stop;

/// Shared by the whole node agent.
#[derive(Default)]
pub(crate) struct Pressures {
    current: Mutex<Vec<Pressure>>,
    changed: Notify,
}

impl Pressures {
    pub(super) fn set(&self, pressures: Vec<Pressure>) {
        let mut current = self.current.lock();
        if *current != pressures {
            *current = pressures;
            self.changed.notify_one();
        }
    }

    pub(crate) fn has(&self, pressure: Pressure) -> bool {
        self.current.lock().contains(&pressure)
    }

    /// Waits until the pressures are others than when this was last called.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Why a new pod cannot come now.
    pub(crate) fn refuse(&self, pod: &Pod) -> Option<Stop> {
        let current = self.current.lock().clone();
        refuse(pod, &current)
    }
}

fn refuse(pod: &Pod, pressures: &[Pressure]) -> Option<Stop> {
    if pressures.is_empty() || is_critical(pod) {
        return None;
    }
    if pressures == [Pressure::Memory] && (qos_class(pod) != QosClass::BestEffort || tolerates_memory_pressure(pod)) {
        return None;
    }
    Some(Stop { reason: REASON.to_owned(), message: had_condition(pressures), rejected: true })
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerates = |toleration: &Toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        (key == "node.kubernetes.io/memory-pressure" || key.is_empty() && exists)
            && matches!(effect, "" | "NoSchedule")
            && (exists || toleration.value.as_deref().unwrap_or_default().is_empty())
    };
    spec::pod_spec(pod).tolerations.iter().flatten().any(tolerates)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    #[test]
    fn under_pressure_few_come_in() {
        use Pressure::{Disk, Memory, Pid};
        let best_effort = pod(json!({ "containers": [{ "name": "c" }] }));
        let burstable =
            pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "memory": "1Mi" } } }] }));
        let tolerant = pod(json!({ "containers": [{ "name": "c" }], "tolerations": [
            { "key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule" }
        ] }));
        let critical = pod(json!({ "containers": [{ "name": "c" }], "priority": 2_000_001_000 }));
        for (pod, pressures, expected) in [
            (&best_effort, vec![], None),
            (&best_effort, vec![Memory], Some("The node had condition: [MemoryPressure]. ")),
            (&burstable, vec![Memory], None),
            (&tolerant, vec![Memory], None),
            (&tolerant, vec![Memory, Disk], Some("The node had condition: [MemoryPressure DiskPressure]. ")),
            (&burstable, vec![Disk], Some("The node had condition: [DiskPressure]. ")),
            (&burstable, vec![Pid], Some("The node had condition: [PIDPressure]. ")),
            (&critical, vec![Memory, Disk, Pid], None),
        ] {
            let refused = refuse(pod, &pressures);
            assert_eq!(refused.as_ref().map(|stop| stop.message.as_str()), expected, "{pressures:?}");
            assert!(refused.is_none_or(|stop| stop.reason == "Evicted"));
        }
    }
}
