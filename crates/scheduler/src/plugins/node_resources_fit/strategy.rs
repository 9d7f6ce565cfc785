//! How nodes on which a pod fits are compared by what is left there.
//!
//! Pure arithmetic, in whole numbers as upstream's.

use crate::configuration::{ResourceSpec, ScoringStrategy, UtilizationShapePoint};
use crate::framework::MAX_SCORE;
use crate::resources::Resources;

/// Scores of a shape are out of ten.
const MAX_SHAPE_SCORE: i64 = 10;

enum Method {
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio(Vec<UtilizationShapePoint>),
}

pub(super) struct Strategy {
    method: Method,
    resources: Vec<ResourceSpec>,
}

impl Default for Strategy {
    fn default() -> Self {
        Self::new(&ScoringStrategy::default())
    }
}

impl Strategy {
    pub(super) fn new(said: &ScoringStrategy) -> Self {
        let method = match (said.kind.as_str(), &said.requested_to_capacity_ratio) {
            ("RequestedToCapacityRatio", Some(ratio)) => Method::RequestedToCapacityRatio(ratio.shape.clone()),
            ("MostAllocated", _) => Method::MostAllocated,
            _ => Method::LeastAllocated,
        };
        Self { method, resources: said.resources.clone() }
    }

    /// The score of a node that has so much and of which so much is used, for a pod that asks for so much.
    pub(super) fn score(&self, asked: &Resources, used: &Resources, have: &Resources) -> i64 {
        let (mut total, mut weights) = (0, 0);
        for resource in &self.resources {
            let (asked, have) = (asked.amount(&resource.name), have.amount(&resource.name));
            let is_core = matches!(resource.name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if have == 0 || (asked == 0 && !is_core) {
                continue;
            }
            let score = self.method.score(used.amount(&resource.name) + asked, have);
            // Upstream leaves resources out of the ratio's mean that score nothing.
            if score > 0 || !matches!(self.method, Method::RequestedToCapacityRatio(_)) {
                total += score * resource.weight;
                weights += resource.weight;
            }
        }
        match (&self.method, weights) {
            (_, 0) => 0,
            (Method::RequestedToCapacityRatio(_), weights) => (total as f64 / weights as f64).round() as i64,
            (_, weights) => total / weights,
        }
    }
}

impl Method {
    fn score(&self, requested: i64, have: i64) -> i64 {
        match self {
            Self::LeastAllocated => (have - requested).max(0) * MAX_SCORE / have,
            Self::MostAllocated => requested.min(have) * MAX_SCORE / have,
            Self::RequestedToCapacityRatio(shape) => on_line(shape, (requested * 100 / have).min(100)),
        }
    }
}

/// The height of a broken line at a utilization.
fn on_line(shape: &[UtilizationShapePoint], utilization: i64) -> i64 {
    let scaled = |point: &UtilizationShapePoint| point.score * (MAX_SCORE / MAX_SHAPE_SCORE);
    let Some(next) = shape.iter().position(|point| utilization <= point.utilization) else {
        return shape.last().map(scaled).unwrap_or_default();
    };
    let after = &shape[next];
    let Some(before) = next.checked_sub(1).map(|at| &shape[at]) else { return scaled(after) };
    let (low, high) = (scaled(before), scaled(after));
    low + (high - low) * (utilization - before.utilization) / (after.utilization - before.utilization)
}
