//! What autoscaling is told, with upstream's defaults.

use std::time::Duration;

/// How autoscaling works: upstream's `--horizontal-pod-autoscaler-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoscalerConfig {
    /// How often metrics are looked at.
    pub sync_period: Duration,
    /// How far back scaling down looks for higher recommendations.
    pub downscale_stabilization: Duration,
    /// How far the ratio of usage to target may lie from 1.
    pub tolerance: f64,
    /// For so long after its start, a pod's CPU counts only while it is ready.
    pub cpu_initialization_period: Duration,
    /// Readiness that changes so soon after the start is the first one.
    pub initial_readiness_delay: Duration,
    /// How many are worked on at a time.
    pub concurrency: usize,
}

impl Default for AutoscalerConfig {
    /// Upstream's.
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_secs(300),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            concurrency: 5,
        }
    }
}
