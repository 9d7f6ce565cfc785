//! Figures of autoscalers.
//!
//! Pure.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kedge_client::object_key;
use kedge_metrics::Text;

use crate::metrics::write_gauges;

/// How many autoscalers there are, and what each wants.
pub(super) fn write(text: &mut Text, autoscalers: &[Arc<HorizontalPodAutoscaler>]) {
    let count = u32::try_from(autoscalers.len()).unwrap_or(u32::MAX);
    let name = "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers";
    text.single(name, "gauge", "Current number of controlled HPA objects.", f64::from(count));
    let wanted = autoscalers.iter().filter_map(|autoscaler| {
        let key = object_key(&**autoscaler);
        Some(([key.namespace, key.name], f64::from(autoscaler.status.as_ref()?.desired_replicas)))
    });
    let name = "horizontal_pod_autoscaler_controller_desired_replicas";
    let help = "Current desired replica count for HPA objects.";
    write_gauges(text, name, help, ["namespace", "hpa_name"], &wanted.collect());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::shown;

    #[test]
    fn autoscalers_are_shown_with_what_they_want() {
        let autoscaler = |name: &str, status| {
            let value = json!({"metadata": {"namespace": "d", "name": name}, "spec": {"maxReplicas": 3,
                "scaleTargetRef": {"kind": "Deployment", "name": name}}, "status": status});
            Arc::new(serde_json::from_value::<HorizontalPodAutoscaler>(value).unwrap())
        };
        let all = [autoscaler("web", json!({"desiredReplicas": 3})), autoscaler("db", json!(null))];
        let text = shown(|text| write(text, &all));
        let name = "horizontal_pod_autoscaler_controller";
        assert!(text.contains(&format!("{name}_num_horizontal_pod_autoscalers 2\n")), "{text}");
        assert!(text.contains(&format!("{name}_desired_replicas{{namespace=\"d\",hpa_name=\"web\"}} 3\n")), "{text}");
        assert!(!text.contains("\"db\""), "{text}");
    }
}
