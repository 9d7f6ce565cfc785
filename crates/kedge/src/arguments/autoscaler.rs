//! `--horizontal-pod-autoscaler-*` of `kube-controller-manager`, as upstream spells them, with its defaults.

use std::time::Duration;

use clap::Args;
use kedge_supervisor::AutoscalerConfig;

use super::components::duration;

/// How replicas follow metrics.
#[derive(Debug, Args)]
pub(crate) struct AutoscalerFlags {
    /// How often metrics are looked at.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = period)]
    horizontal_pod_autoscaler_sync_period: Duration,
    /// How far back scaling down looks for higher recommendations.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = duration)]
    horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// How far the ratio of usage to target may lie from 1.
    #[arg(long, value_name = "RATIO", default_value_t = 0.1, value_parser = tolerance)]
    horizontal_pod_autoscaler_tolerance: f64,
    /// For so long after its start, a pod's CPU counts only while it is ready.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = duration)]
    horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// Readiness that changes so soon after the start is the first one.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    horizontal_pod_autoscaler_initial_readiness_delay: Duration,
    /// How many autoscalers are worked on at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = at_least_one)]
    concurrent_horizontal_pod_autoscaler_syncs: usize,
}

impl AutoscalerFlags {
    pub(super) fn config(&self) -> AutoscalerConfig {
        AutoscalerConfig {
            sync_period: self.horizontal_pod_autoscaler_sync_period,
            downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            tolerance: self.horizontal_pod_autoscaler_tolerance,
            cpu_initialization_period: self.horizontal_pod_autoscaler_cpu_initialization_period,
            initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
            concurrency: self.concurrent_horizontal_pod_autoscaler_syncs,
        }
    }
}

/// A duration above zero.
fn period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if period.is_zero() { Err("it must be more than nothing".to_owned()) } else { Ok(period) }
}

fn tolerance(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| ratio.is_finite() && *ratio >= 0.0);
    ratio.ok_or_else(|| "a number like 0.1, not below 0, is expected".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number above 0 is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: AutoscalerFlags,
    }

    fn read(flags: &[&str]) -> Result<AutoscalerConfig, String> {
        let line = Line::try_parse_from(std::iter::once(&"kube-controller-manager").chain(flags));
        line.map(|line| line.flags.config()).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_upstreams_with_its_defaults() {
        assert_eq!(read(&[]), Ok(AutoscalerConfig::default()));
        let told = read(&[
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-downscale-stabilization=1m30s",
            "--horizontal-pod-autoscaler-tolerance=0.25",
            "--horizontal-pod-autoscaler-cpu-initialization-period=2m",
            "--horizontal-pod-autoscaler-initial-readiness-delay=7s",
            "--concurrent-horizontal-pod-autoscaler-syncs=9",
        ]);
        let expected = AutoscalerConfig {
            sync_period: Duration::from_secs(5),
            downscale_stabilization: Duration::from_secs(90),
            tolerance: 0.25,
            cpu_initialization_period: Duration::from_secs(120),
            initial_readiness_delay: Duration::from_secs(7),
            concurrency: 9,
        };
        assert_eq!(told, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (flag, why) in [
            ("--horizontal-pod-autoscaler-sync-period=0s", "more than nothing"),
            ("--horizontal-pod-autoscaler-tolerance=-1", "not below 0"),
            ("--concurrent-horizontal-pod-autoscaler-syncs=0", "above 0"),
        ] {
            let refused = read(&[flag]).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
