//! How fast replicas may change: what was recommended and done before, and the limits of behaviours.
//!
//! Pure but for its memory, which is handed the time. Invariant: it remembers nothing that no window reaches.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::conditions::Said;

/// How far replicas grow at a time without behaviours.
const FACTOR: f64 = 2.0;
const LEAST_LIMIT: f64 = 4.0;

/// What is remembered of one autoscaler.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    added: Vec<(Timestamp, i32)>,
    removed: Vec<(Timestamp, i32)>,
}

/// What is to be normalized.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) least: i32,
    pub(super) most: i32,
}

/// What comes of it, and what is said about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) replicas: i32,
    pub(super) able: Said,
    pub(super) limited: Said,
}

impl Memory {
    /// The replicas at the beginning count as the first recommendation.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Replicas as limits and earlier recommendations allow; `window` is how far back scaling down looks by default.
    pub(super) fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        wish: Wish,
        window: SignedDuration,
        now: Timestamp,
    ) -> Normalized {
        match behavior {
            None => self.by_default(wish, window, now),
            Some(behavior) => self.by_behavior(behavior, wish, window, now),
        }
    }

    fn by_default(&mut self, wish: Wish, window: SignedDuration, now: Timestamp) -> Normalized {
        self.recommendations.retain(|(time, _)| *time >= now - window);
        let highest = self.recommendations.iter().map(|(_, replicas)| *replicas).max();
        let stable = highest.map_or(wish.desired, |highest| highest.max(wish.desired));
        self.recommendations.push((now, wish.desired));
        let able = if stable == wish.desired { ready() } else { Said::new(true, "ScaleDownStabilized", HIGHER) };
        let limit = (FACTOR * f64::from(wish.current)).max(LEAST_LIMIT).min(f64::from(i32::MAX)) as i32;
        let (most, said) = match wish.most > limit {
            true => (limit, Said::new(true, "ScaleUpLimit", TOO_FAST_UP)),
            false => (wish.most, Said::new(true, "TooManyReplicas", TOO_MANY)),
        };
        let (replicas, limited) = if stable < wish.least {
            (wish.least, Said::new(true, "TooFewReplicas", TOO_FEW))
        } else if stable > most {
            (most, said)
        } else {
            (stable, within())
        };
        Normalized { replicas, able, limited }
    }

    fn by_behavior(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wish: Wish,
        window: SignedDuration,
        now: Timestamp,
    ) -> Normalized {
        let seconds = |rules: Option<&HPAScalingRules>| rules.and_then(|rules| rules.stabilization_window_seconds);
        let of = |seconds: i32| SignedDuration::from_secs(seconds.into());
        let up_window = seconds(behavior.scale_up.as_ref()).map_or(SignedDuration::ZERO, of);
        let down_window = seconds(behavior.scale_down.as_ref()).map_or(window, of);
        let (mut lowest, mut highest) = (wish.desired, wish.desired);
        for (time, replicas) in &self.recommendations {
            if *time > now - up_window {
                lowest = lowest.min(*replicas);
            }
            if *time > now - down_window {
                highest = highest.max(*replicas);
            }
        }
        // Not `clamp`: where both windows disagree, the lower limit gives way.
        let stable = wish.current.max(lowest).min(highest);
        self.recommendations.retain(|(time, _)| *time >= now - up_window.max(down_window));
        self.recommendations.push((now, wish.desired));
        let able = match (stable == wish.desired, wish.desired >= wish.current) {
            (true, _) => ready(),
            (false, true) => Said::new(true, "ScaleUpStabilized", LOWER),
            (false, false) => Said::new(true, "ScaleDownStabilized", HIGHER),
        };
        let (replicas, limited) = self.at_the_rate(behavior, Wish { desired: stable, ..wish }, now);
        Normalized { replicas, able, limited }
    }

    fn at_the_rate(&self, behavior: &HorizontalPodAutoscalerBehavior, wish: Wish, now: Timestamp) -> (i32, Said) {
        let Wish { current, desired, least, most } = wish;
        if desired > current {
            let limit = self.upper_limit(behavior.scale_up.as_ref(), current, now).max(current);
            let (most, said) = match most > limit {
                true => (limit, Said::new(true, "ScaleUpLimit", TOO_FAST_UP)),
                false => (most, Said::new(true, "TooManyReplicas", TOO_MANY)),
            };
            if desired > most {
                return (most, said);
            }
        } else if desired < current {
            let limit = self.lower_limit(behavior.scale_down.as_ref(), current, now).min(current);
            let (least, said) = match least < limit {
                true => (limit, Said::new(true, "ScaleDownLimit", TOO_FAST_DOWN)),
                false => (least, Said::new(true, "TooFewReplicas", TOO_FEW)),
            };
            if desired < least {
                return (least, said);
            }
        }
        (desired, within())
    }

    fn upper_limit(&self, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
        let defaults = [("Pods", 4, 15), ("Percent", 100, 15)];
        let proposals = self.proposals(rules, &defaults, current, now, |start, kind, value| match kind {
            "Pods" => start + f64::from(value),
            _ => (start * (1.0 + f64::from(value) / 100.0)).ceil(),
        });
        match select(rules) {
            "Disabled" => current,
            "Min" => proposals.into_iter().min().unwrap_or(i32::MAX),
            _ => proposals.into_iter().max().unwrap_or(i32::MIN),
        }
    }

    fn lower_limit(&self, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
        let proposals = self.proposals(rules, &[("Percent", 100, 15)], current, now, |start, kind, value| match kind {
            "Pods" => start - f64::from(value),
            _ => start * (1.0 - f64::from(value) / 100.0),
        });
        match select(rules) {
            "Disabled" => current,
            "Min" => proposals.into_iter().max().unwrap_or(i32::MIN),
            _ => proposals.into_iter().min().unwrap_or(i32::MAX),
        }
    }

    fn proposals(
        &self,
        rules: Option<&HPAScalingRules>,
        defaults: &[(&str, i32, i32)],
        current: i32,
        now: Timestamp,
        propose: impl Fn(f64, &str, i32) -> f64,
    ) -> Vec<i32> {
        let at_rate = |kind: &str, value: i32, period: i32| {
            let since = now - SignedDuration::from_secs(period.into());
            let changed = |changes: &[(Timestamp, i32)]| -> i32 {
                changes.iter().filter(|(time, _)| *time > since).map(|(_, replicas)| *replicas).sum()
            };
            let start = current - changed(&self.added) + changed(&self.removed);
            propose(f64::from(start), kind, value) as i32
        };
        match rules.and_then(|rules| rules.policies.as_ref()) {
            Some(policies) => {
                policies.iter().map(|policy| at_rate(&policy.type_, policy.value, policy.period_seconds)).collect()
            }
            None => defaults.iter().map(|(kind, value, period)| at_rate(kind, *value, *period)).collect(),
        }
    }

    /// Replicas were changed.
    pub(super) fn changed(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (rules, changes) = match to > from {
            true => (behavior.scale_up.as_ref(), &mut self.added),
            false => (behavior.scale_down.as_ref(), &mut self.removed),
        };
        let policies = rules.and_then(|rules| rules.policies.as_ref()).into_iter().flatten();
        let longest = policies.map(|policy| policy.period_seconds).max().unwrap_or(15);
        changes.retain(|(time, _)| *time >= now - SignedDuration::from_secs(longest.into()));
        changes.push((now, (to - from).abs()));
    }
}

fn select(rules: Option<&HPAScalingRules>) -> &str {
    rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max")
}

const HIGHER: &str = "recent recommendations were higher than current one, applying the highest recent recommendation";
const LOWER: &str = "recent recommendations were lower than current one, applying the lowest recent recommendation";
const TOO_FAST_UP: &str = "the desired replica count is increasing faster than the maximum scale rate";
const TOO_FAST_DOWN: &str = "the desired replica count is decreasing faster than the maximum scale rate";
const TOO_MANY: &str = "the desired replica count is more than the maximum replica count";
const TOO_FEW: &str = "the desired replica count is less than the minimum replica count";

fn ready() -> Said {
    Said::new(true, "ReadyForNewScale", "recommended size matches current size")
}

fn within() -> Said {
    Said::new(false, "DesiredWithinRange", "the desired count is within the acceptable range")
}

#[cfg(test)]
mod tests;
