//! The kinds of the autoscaling group: HorizontalPodAutoscalers in `v1` and `v2`, stored as `v2`.
//!
//! `Scale` is the body of a subresource only.

mod horizontal_pod_autoscaler;
mod version_1;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(version: &str, resource: &str) -> &'static dyn Strategy {
    match (version, resource) {
        ("v1", "horizontalpodautoscalers") => &version_1::HorizontalPodAutoscaler,
        (_, "horizontalpodautoscalers") => &horizontal_pod_autoscaler::HorizontalPodAutoscaler,
        _ => &Generic::PLAIN,
    }
}
