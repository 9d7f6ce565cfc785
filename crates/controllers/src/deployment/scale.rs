//! How many pods each ReplicaSet of a Deployment gets next.
//!
//! Pure. A target is a set's name with its new size; sets without a target stay as they are.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::view::{
    DESIRED_REPLICAS, MAX_REPLICAS, Sets, View, annotated, available_of, created_of, replicas_of, set_name, sum,
};

/// The new size of one ReplicaSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) set: String,
    pub(crate) replicas: i32,
}

fn target(set: &ReplicaSet, replicas: i32) -> Option<Target> {
    (replicas_of(set) != replicas).then(|| Target { set: set_name(set).to_owned(), replicas })
}

/// Whether the Deployment was scaled since its sets were annotated.
pub(crate) fn is_scaling_event(view: &View<'_>, sets: &Sets) -> bool {
    sets.active()
        .any(|set| annotated::<i32>(&set.metadata, DESIRED_REPLICAS).is_some_and(|desired| desired != view.replicas))
}

/// The size of a set with the newest template, within the surge.
pub(crate) fn plan_new_size(view: &View<'_>, sets: &Sets) -> i32 {
    let current = sets.new.as_ref().map_or(0, |set| replicas_of(set));
    if !view.is_rolling {
        return view.replicas;
    }
    let room = view.replicas + view.max_surge - sum(sets.all(), replicas_of);
    if room <= 0 { current } else { current + room.min(view.replicas - current) }
}

/// One step of a rolling update: grow the new set, or else shrink the old ones as far as availability allows.
pub(crate) fn plan_rolling(view: &View<'_>, sets: &Sets) -> Vec<Target> {
    let Some(new) = &sets.new else { return Vec::new() };
    let size = match replicas_of(new) > view.replicas {
        true => view.replicas,
        false => plan_new_size(view, sets),
    };
    match target(new, size) {
        Some(target) => vec![target],
        None => plan_shrinking(view, sets, new),
    }
}

fn plan_shrinking(view: &View<'_>, sets: &Sets, new: &ReplicaSet) -> Vec<Target> {
    let least_available = view.replicas - view.max_unavailable;
    let new_unavailable = replicas_of(new) - available_of(new);
    let budget = sum(sets.all(), replicas_of) - least_available - new_unavailable;
    if sum(&sets.old, replicas_of) == 0 || budget <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = sets.old.iter().map(|set| replicas_of(set)).collect();
    // Pods that do not work cost nothing: they go first.
    let mut left = budget;
    for (set, size) in sets.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available_of(set)).max(0).min(left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let mut left = sum(sets.all(), available_of) - least_available;
    for size in &mut sizes {
        let healthy = (*size).min(left.max(0));
        *size -= healthy;
        left -= healthy;
    }
    sets.old.iter().zip(sizes).filter_map(|(set, size)| target(set, size)).collect()
}

/// One step of a replacement without overlap: all old sets to nothing.
pub(crate) fn plan_old_to_zero(sets: &Sets) -> Vec<Target> {
    sets.old.iter().filter_map(|set| target(set, 0)).collect()
}

/// What a change of `spec.replicas` does: to the one set that is active, or to each in proportion to its size.
pub(crate) fn plan_scaling(view: &View<'_>, sets: &Sets) -> Vec<Target> {
    if let Some(only) = active_or_latest(sets) {
        return target(only, view.replicas).into_iter().collect();
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(view, new)) {
        return sets.old.iter().filter_map(|set| target(set, 0)).collect();
    }
    if view.is_rolling { plan_proportional(view, sets) } else { Vec::new() }
}

/// The set to scale where only one matters; `None` where several are active.
fn active_or_latest(sets: &Sets) -> Option<&Arc<ReplicaSet>> {
    let mut active = sets.active();
    match (active.next(), active.next()) {
        (None, _) => sets.new.as_ref().or_else(|| sets.old.iter().max_by_key(|set| created_of(&set.metadata))),
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => None,
    }
}

fn is_saturated(view: &View<'_>, set: &ReplicaSet) -> bool {
    annotated(&set.metadata, DESIRED_REPLICAS) == Some(view.replicas)
        && replicas_of(set) == view.replicas
        && available_of(set) == view.replicas
}

fn plan_proportional(view: &View<'_>, sets: &Sets) -> Vec<Target> {
    let mut active: Vec<&Arc<ReplicaSet>> = sets.active().collect();
    let allowed = if view.replicas > 0 { view.replicas + view.max_surge } else { 0 };
    let to_add = allowed - sum(active.iter().copied(), replicas_of);
    // The largest first; of equals the newest grows and the oldest shrinks first.
    match to_add > 0 {
        true => active.sort_by_key(|set| (Reverse(replicas_of(set)), Reverse(created_of(&set.metadata)))),
        false => active.sort_by_key(|set| (Reverse(replicas_of(set)), created_of(&set.metadata))),
    }
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in &active {
        let share = match to_add {
            0 => 0,
            _ => proportion(view, set, to_add, added),
        };
        sizes.push(replicas_of(set) + share);
        added += share;
    }
    // Rounding may leave a rest, which the largest takes.
    if let (Some(first), true) = (sizes.first_mut(), to_add != 0) {
        *first = (*first + to_add - added).max(0);
    }
    active.iter().zip(sizes).filter_map(|(set, size)| target(set, size)).collect()
}

fn proportion(view: &View<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if replicas_of(set) == 0 || to_add == added {
        return 0;
    }
    let share = fraction(view, set);
    let left = to_add - added;
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// What a set would gain or lose if it kept its share of the Deployment's largest allowed size.
fn fraction(view: &View<'_>, set: &ReplicaSet) -> i32 {
    let size = replicas_of(set);
    if view.replicas == 0 {
        return -size;
    }
    let status = view.deployment.status.as_ref().and_then(|status| status.replicas);
    let earlier = annotated::<i32>(&set.metadata, MAX_REPLICAS).filter(|earlier| *earlier > 0).or(status).unwrap_or(0);
    if earlier <= 0 {
        return 0;
    }
    let scaled = f64::from(size) * f64::from(view.replicas + view.max_surge) / f64::from(earlier);
    scaled.round() as i32 - size
}

#[cfg(test)]
mod tests {
    use super::super::view::fixtures::{annotate, deployment, set, template};
    use super::*;

    fn show(targets: &[Target]) -> String {
        let parts: Vec<String> = targets.iter().map(|target| format!("{}={}", target.set, target.replicas)).collect();
        parts.join(" ")
    }

    #[test]
    fn a_rolling_update_moves_step_by_step() {
        // Replicas, surge, unavailable; sizes and availability of the old (v0) and the new (v1) set.
        let check =
            |(replicas, surge, unavailable): (i32, i32, i32), old: (i32, i32), new: (i32, i32), expected: &str| {
                let deployment = deployment(replicas, surge, unavailable);
                let view = View::new(&deployment).unwrap();
                let sets = Sets::new(&template("v1"), vec![set("v0", 1, old.0, old.1), set("v1", 2, new.0, new.1)]);
                assert_eq!(show(&plan_rolling(&view, &sets)), expected, "old {old:?} new {new:?}");
            };
        let usual = (10, 3, 2);
        check(usual, (10, 10), (0, 0), "v1=3");
        check(usual, (10, 10), (3, 0), "v0=8");
        check(usual, (8, 8), (3, 0), "v1=5");
        check(usual, (8, 8), (5, 0), "");
        check(usual, (8, 8), (5, 3), "v0=5");
        check(usual, (0, 0), (10, 10), "");
        check(usual, (0, 0), (12, 12), "v1=10");
        // Old pods that do not work go first and at once.
        check(usual, (10, 0), (3, 0), "v0=8");
        check((1, 1, 0), (1, 1), (1, 0), "");
        check((1, 1, 0), (1, 1), (1, 1), "v0=0");
    }

    #[test]
    fn scaling_keeps_the_proportions() {
        // The Deployment had 10 replicas and a surge of 3 before.
        let check = |replicas: i32, old: (i32, i32), new: (i32, i32), expected: &str| {
            let deployment = deployment(replicas, 3, 2);
            let view = View::new(&deployment).unwrap();
            let mut both = vec![set("v0", 1, old.0, old.1), set("v1", 2, new.0, new.1)];
            for set in &mut both {
                annotate(set, DESIRED_REPLICAS, 10);
                annotate(set, MAX_REPLICAS, 13);
            }
            let sets = Sets::new(&template("v1"), both);
            assert_eq!(is_scaling_event(&view, &sets), replicas != 10);
            assert_eq!(show(&plan_scaling(&view, &sets)), expected, "{replicas}: {old:?} {new:?}");
        };
        check(15, (8, 8), (5, 0), "v0=11 v1=7");
        check(5, (8, 8), (5, 0), "v0=5 v1=3");
        check(20, (10, 10), (0, 0), "v0=20");
        check(3, (0, 0), (10, 10), "v1=3");
        check(0, (8, 8), (5, 0), "v0=0 v1=0");
        check(10, (3, 3), (10, 10), "v0=0");
    }
}
