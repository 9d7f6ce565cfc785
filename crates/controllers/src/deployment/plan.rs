//! One pass over a Deployment: what to write, in which order.
//!
//! Pure. Invariant: each pass either moves pods (sizes of sets) or cleans up, never both, so that every decision is made
//! on counts that the cluster has confirmed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::revision::{
    annotate_replicas, plan_cleanup, plan_deployment_revision, plan_revision, plan_set, refresh_new,
};
use super::scale::{Target, is_scaling_event, plan_new_size, plan_old_to_zero, plan_rolling, plan_scaling};
use super::status::{
    Conditions, is_complete, plan_counts, plan_deadline_look, plan_progress, progress, progressing, set_condition,
};
use super::view::{REVISION, Sets, View, replicas_of, set_name, sum};

/// An update of a ReplicaSet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SetUpdate {
    pub(crate) set: ReplicaSet,
    /// The size before, where it changes.
    pub(crate) scaled_from: Option<i32>,
}

/// What one pass writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// The ReplicaSet of a template that has none yet.
    pub(crate) create: Option<ReplicaSet>,
    pub(crate) update: Vec<SetUpdate>,
    pub(crate) delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment with changed annotations.
    pub(crate) deployment: Option<Deployment>,
    pub(crate) status: Option<DeploymentStatus>,
    pub(crate) look_again: Option<Duration>,
}

/// Plans a pass. `old_pods_run` says whether pods of old templates still exist, for the Recreate strategy.
pub(crate) fn plan(
    deployment: &Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    old_pods_run: impl FnOnce(&Sets) -> bool,
    now: Timestamp,
) -> Plan {
    let Some(view) = View::new(deployment) else { return Plan::default() };
    let sets = Sets::new(&view.spec.template, sets);
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut pass = Pass { view, sets, conditions, plan: Plan::default(), changed: HashMap::new(), now };
    pass.run(old_pods_run);
    pass.finish()
}

struct Pass<'a> {
    view: View<'a>,
    sets: Sets,
    conditions: Conditions,
    plan: Plan,
    changed: HashMap<String, ReplicaSet>,
    now: Timestamp,
}

impl Pass<'_> {
    fn run(&mut self, old_pods_run: impl FnOnce(&Sets) -> bool) {
        if self.view.deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        self.note_pause();
        if self.view.is_paused || is_scaling_event(&self.view, &self.sets) {
            self.sync_new_set(false);
            self.apply(plan_scaling(&self.view, &self.sets));
            self.annotate_active();
            if self.view.is_paused {
                self.plan.delete = plan_cleanup(&self.view, &self.sets);
            }
            return;
        }
        let targets = match self.view.is_rolling {
            true => {
                self.sync_new_set(true);
                plan_rolling(&self.view, &self.sets)
            }
            false => self.plan_recreate(old_pods_run),
        };
        let moves = !targets.is_empty() || self.plan.create.is_some();
        self.apply(targets);
        self.annotate_new();
        let status = plan_counts(&self.view, &self.sets, self.conditions.clone(), self.now);
        if !moves && is_complete(&self.view, &status) {
            self.plan.delete = plan_cleanup(&self.view, &self.sets);
        }
    }

    /// Old pods end before new ones begin.
    fn plan_recreate(&mut self, old_pods_run: impl FnOnce(&Sets) -> bool) -> Vec<Target> {
        self.sync_new_set(false);
        let targets = plan_old_to_zero(&self.sets);
        let old = sum(&self.sets.old, |set| set.status.as_ref().map_or(0, |status| status.replicas));
        if !targets.is_empty() || old > 0 || old_pods_run(&self.sets) {
            return targets;
        }
        self.sync_new_set(true);
        let new = self.sets.new.as_deref().filter(|set| replicas_of(set) != self.view.replicas);
        new.map(|set| Target { set: set_name(set).to_owned(), replicas: self.view.replicas }).into_iter().collect()
    }

    fn note_pause(&mut self) {
        if self.view.progress_deadline.is_none() {
            return;
        }
        let current = progress(&self.conditions).and_then(|current| current.reason.as_deref());
        let (reason, text) = match (self.view.is_paused, current) {
            // A deadline that passed is not forgotten by pausing.
            (_, Some("ProgressDeadlineExceeded")) => return,
            (true, Some("DeploymentPaused")) => return,
            (true, _) => ("DeploymentPaused", "Deployment is paused"),
            (false, Some("DeploymentPaused")) => ("DeploymentResumed", "Deployment is resumed"),
            (false, _) => return,
        };
        set_condition(&mut self.conditions, progressing("Unknown", reason, text.to_owned(), self.now));
    }

    /// Brings the new set's metadata up to date, or plans to create it.
    fn sync_new_set(&mut self, may_create: bool) {
        let revision = plan_revision(&self.sets);
        if let Some(set) = self.sets.new.clone() {
            let mut fresh = (*set).clone();
            refresh_new(&self.view, &mut fresh, revision);
            self.plan_deployment_revision(&fresh);
            self.change(&set, fresh);
            if self.view.progress_deadline.is_some() && progress(&self.conditions).is_none() {
                let text = format!("Found new replica set \"{}\"", set_name(&set));
                set_condition(&mut self.conditions, progressing("True", "FoundNewReplicaSet", text, self.now));
            }
        } else if may_create {
            let set = plan_set(&self.view, plan_new_size(&self.view, &self.sets), revision);
            self.plan_deployment_revision(&set);
            if self.view.progress_deadline.is_some() {
                let text = format!("Created new replica set \"{}\"", set_name(&set));
                set_condition(&mut self.conditions, progressing("True", "NewReplicaSetCreated", text, self.now));
            }
            self.plan.create = Some(set);
        }
    }

    fn plan_deployment_revision(&mut self, set: &ReplicaSet) {
        let annotations: Option<&BTreeMap<String, String>> = set.metadata.annotations.as_ref();
        let revision = annotations.and_then(|annotations| annotations.get(REVISION)).cloned().unwrap_or_default();
        self.plan.deployment = plan_deployment_revision(self.view.deployment, &revision);
    }

    fn apply(&mut self, targets: Vec<Target>) {
        for target in targets {
            let Some(set) = self.sets.all().find(|set| set_name(set) == target.set).cloned() else { continue };
            let mut fresh = self.changed.get(&target.set).cloned().unwrap_or_else(|| (*set).clone());
            fresh.spec.get_or_insert_default().replicas = Some(target.replicas);
            annotate_replicas(&self.view, &mut fresh);
            self.change(&set, fresh);
        }
    }

    /// The new set always says how large the Deployment is.
    fn annotate_new(&mut self) {
        let Some(set) = self.sets.new.clone() else { return };
        self.annotate(&set);
    }

    /// After a change of scale every active set says so, or the change would look new for ever.
    fn annotate_active(&mut self) {
        let active: Vec<Arc<ReplicaSet>> = self.sets.active().cloned().collect();
        active.iter().for_each(|set| self.annotate(set));
    }

    fn annotate(&mut self, set: &Arc<ReplicaSet>) {
        let mut fresh = self.changed.get(set_name(set)).cloned().unwrap_or_else(|| (**set).clone());
        annotate_replicas(&self.view, &mut fresh);
        self.change(set, fresh);
    }

    fn change(&mut self, set: &ReplicaSet, fresh: ReplicaSet) {
        if fresh != *set {
            self.changed.insert(set_name(set).to_owned(), fresh);
        }
    }

    fn finish(mut self) -> Plan {
        for set in self.sets.all() {
            if let Some(fresh) = self.changed.remove(set_name(set)) {
                let before = replicas_of(set);
                let scaled_from = (replicas_of(&fresh) != before).then_some(before);
                self.plan.update.push(SetUpdate { set: fresh, scaled_from });
            }
        }
        // What shrinks goes first, so that a rolling update never exceeds its surge.
        self.plan.update.sort_by_key(|update| replicas_of(&update.set) - update.scaled_from.unwrap_or(0));
        let mut status = plan_counts(&self.view, &self.sets, self.conditions, self.now);
        if !self.view.is_paused {
            plan_progress(&self.view, &self.sets, &mut status, self.now);
        }
        self.plan.look_again = plan_deadline_look(&self.view, &status, self.now);
        if self.view.deployment.status.as_ref() != Some(&status) {
            self.plan.status = Some(status);
        }
        self.plan
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::fixtures::{annotate, deployment, set};
    use super::super::view::{DESIRED_REPLICAS, MAX_REPLICAS};
    use super::*;

    fn show(plan: &Plan) -> String {
        let mut parts = Vec::new();
        if let Some(set) = &plan.create {
            parts.push(format!("create {}", replicas_of(set)));
        }
        for update in &plan.update {
            if let Some(before) = update.scaled_from {
                parts.push(format!("{} {before}->{}", set_name(&update.set), replicas_of(&update.set)));
            }
        }
        parts.extend(plan.delete.iter().map(|set| format!("delete {}", set_name(set))));
        parts.join(", ")
    }

    fn check(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>, noted: i32, old_pods_run: bool, expected: &str) {
        for set in &mut sets {
            annotate(set, DESIRED_REPLICAS, noted);
            annotate(set, MAX_REPLICAS, noted + 1);
        }
        let plan = plan(deployment, sets, |_| old_pods_run, Timestamp::UNIX_EPOCH);
        assert_eq!(show(&plan), expected);
    }

    #[test]
    fn rolling_updates_pauses_and_scales() {
        let mut deployment = deployment(3, 1, 0);
        check(&deployment, vec![], 3, false, "create 3");
        check(&deployment, vec![set("v0", 1, 3, 3)], 3, true, "create 1");
        check(&deployment, vec![set("v0", 1, 3, 3), set("v1", 2, 1, 1)], 3, true, "v0 3->2");
        check(&deployment, vec![set("v0", 1, 2, 2), set("v1", 2, 1, 1)], 3, true, "v1 1->2");
        check(&deployment, vec![set("v1", 2, 5, 5)], 5, true, "v1 5->3");
        let spec = deployment.spec.get_or_insert_default();
        spec.paused = Some(true);
        check(&deployment, vec![], 3, false, "");
        check(&deployment, vec![set("v0", 1, 3, 3)], 3, true, "");
        check(&deployment, vec![set("v0", 1, 2, 2)], 2, true, "v0 2->3");
    }

    #[test]
    fn recreate_waits_for_the_old_pods() {
        let mut deployment = deployment(2, 1, 0);
        deployment.spec.get_or_insert_default().strategy.get_or_insert_default().type_ = Some("Recreate".to_owned());
        check(&deployment, vec![set("v0", 1, 2, 2)], 2, true, "v0 2->0");
        check(&deployment, vec![set("v0", 1, 0, 0)], 2, true, "");
        let mut leaving = set("v0", 1, 0, 0);
        Arc::make_mut(&mut leaving).status.get_or_insert_default().replicas = 1;
        check(&deployment, vec![leaving], 2, false, "");
        check(&deployment, vec![set("v0", 1, 0, 0)], 2, false, "create 2");
        check(&deployment, vec![set("v0", 1, 0, 0), set("v1", 2, 0, 0)], 2, false, "v1 0->2");
    }

    #[test]
    fn history_is_cleaned_up_once_the_rollout_is_complete() {
        let mut deployment = deployment(1, 1, 0);
        deployment.spec.get_or_insert_default().revision_history_limit = Some(0);
        check(&deployment, vec![set("v0", 1, 0, 0), set("v1", 2, 1, 0)], 1, true, "");
        check(&deployment, vec![set("v0", 1, 0, 0), set("v1", 2, 1, 1)], 1, true, "delete v0");
    }

    #[test]
    fn a_settled_deployment_needs_nothing() {
        let deployment = deployment(2, 1, 0);
        let mut sets = vec![set("v1", 1, 2, 2)];
        annotate(&mut sets[0], DESIRED_REPLICAS, 2);
        annotate(&mut sets[0], MAX_REPLICAS, 3);
        let first = plan(&deployment, sets.clone(), |_| true, Timestamp::UNIX_EPOCH);
        let mut settled = first.deployment.unwrap();
        settled.status = first.status;
        assert_eq!(plan(&settled, sets, |_| true, Timestamp::UNIX_EPOCH), Plan::default());
    }

    #[test]
    fn pausing_and_resuming_is_said() {
        let mut deployment = deployment(1, 1, 0);
        let reason = |deployment: &Deployment| {
            let plan = plan(deployment, vec![set("v1", 1, 1, 0)], |_| true, Timestamp::UNIX_EPOCH);
            let conditions = plan.status.clone().unwrap().conditions.unwrap();
            (progress(&conditions).unwrap().reason.clone().unwrap(), plan.status)
        };
        deployment.spec.get_or_insert_default().paused = Some(true);
        let (paused, status) = reason(&deployment);
        assert_eq!(paused, "DeploymentPaused");
        deployment.status = status;
        deployment.spec.get_or_insert_default().paused = None;
        deployment.status.get_or_insert_default().updated_replicas = Some(1);
        assert_eq!(reason(&deployment).0, "DeploymentResumed");
    }
}
