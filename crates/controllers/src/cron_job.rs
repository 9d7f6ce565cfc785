//! The CronJob controller: starts Jobs on a schedule.
//!
//! Invariant: one time of the schedule starts at most one Job, as the Job's name is made of it.

#[cfg(test)]
mod level_driven;
mod plan;
mod schedule;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kedge_client::{Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{ReconcileError, is_already_exists, is_namespace_terminating, message_of, unless_gone};
use crate::expectations::Expectations;
use crate::owners::{controller_key, is_controlled_by};
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{Plan, note_start};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let crons = starter.informer::<CronJob>();
    let jobs = starter.informer::<Job>();
    let queue = Queue::new();
    starter.enqueue(&crons, &queue, |change| vec![object_key(&**change.object())]);
    starter.enqueue(&jobs, &queue, |change| controller_key::<CronJob>(&change.object().metadata).into_iter().collect());
    let workers = starter.context.config.concurrency;
    let controller = Crons {
        context: starter.context.clone(),
        crons,
        jobs,
        expected_status: Expectations::default(),
        expectations: Expectations::default(),
    };
    starter.work(Arc::new(controller), queue, workers);
}

struct Crons {
    context: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    /// A status that the cache does not show yet says which times had their Jobs, also where these are gone.
    expected_status: Expectations,
    expectations: Expectations,
}

impl Controller for Crons {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(cron) = self.crons.get(key) else {
            self.expected_status.forget(key);
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let now = self.context.now();
        let lag = self.expected_status.lag(key, &self.crons, now);
        if let Some(lag) = lag.or_else(|| self.expectations.lag(key, &self.jobs, now)) {
            return Ok(Next::After(lag));
        }
        let jobs = self.jobs.in_namespace(&key.namespace);
        let jobs: Vec<Arc<Job>> =
            jobs.into_iter().filter(|job| is_controlled_by(&job.metadata, &cron.metadata)).collect();
        let plan = plan::plan(&cron, &jobs, now);
        let look_again = plan.look_again;
        self.execute(key, &cron, plan).await?;
        Ok(Next::Done.sooner(look_again))
    }
}

impl Crons {
    async fn execute(&self, key: &ObjectKey, cron: &CronJob, mut plan: Plan) -> Result<(), ReconcileError> {
        let about = object_reference(cron);
        for said in &plan.announce {
            match said.is_warning {
                true => self.context.warning(&about, said.reason, &said.message),
                false => self.context.normal(&about, said.reason, &said.message),
            }
        }
        let jobs = Api::<Job>::namespaced(self.context.client.clone(), &key.namespace);
        for job in &plan.delete {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None }),
                ..DeleteParams::background()
            };
            let name = name_of(&job.metadata);
            if let Err(error) = unless_gone(jobs.delete(name, &parameters).await) {
                // The past tense is upstream's.
                self.context.warning(&about, "FailedDelete", format!("Deleted job: {}", message_of(&error)));
                return Err(error.into());
            }
            self.expectations.deleted(key, &job.metadata, self.context.now());
            self.context.normal(&about, "SuccessfulDelete", format!("Deleted job {name}"));
        }
        if let Some(job) = plan.create.take() {
            match jobs.create(&PostParams::default(), &job).await {
                Ok(created) => {
                    self.expectations.created(key, &created.metadata, self.context.now());
                    let text = format!("Created job {}", name_of(&created.metadata));
                    if let Some(due) = plan::scheduled_at(&created) {
                        let late = self.context.now().duration_since(due.0);
                        self.context.metrics.workloads().cron_started(late);
                    }
                    self.context.normal(&about, "SuccessfulCreate", text);
                    note_start(&mut plan.status, &created);
                }
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(error) => {
                    let text = format!("Error creating job: {}", message_of(&error));
                    self.context.warning(&about, "FailedCreate", text);
                    return Err(error.into());
                }
            }
        }
        if cron.status.clone().unwrap_or_default() == plan.status {
            return Ok(());
        }
        let crons = Api::<CronJob>::namespaced(self.context.client.clone(), &key.namespace);
        let changed = CronJob { status: Some(plan.status), ..cron.clone() };
        let written = crons.replace_status(&key.name, &PostParams::default(), &changed).await?;
        self.expected_status.updated(key, &written.metadata, self.context.now());
        Ok(())
    }
}
