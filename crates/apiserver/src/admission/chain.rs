//! The way of a request through admission: which plugins, policies and webhooks are asked, in which order, and how long that
//! takes.
//!
//! Invariant: what a policy or webhook has changed is seen by everybody else once more.

use std::sync::Arc;
use std::time::Instant;

use kedge_meta::ApiStatus;
use kedge_store::Store;
use serde_json::Value;

use super::member::{Member, Times};
use super::policies::MutatingPolicies;
use super::webhooks::{WebhookCredentials, Webhooks};
use super::{Attributes, Effects, member, plugins, policies, webhooks};
use crate::config::Config;
use crate::core::Core;
use crate::registry::Resource;

/// How often all may change an object: once more after a policy or webhook has.
const ROUNDS: usize = 2;

/// The plugins, in order, then policies, then webhooks.
pub(crate) struct Chain {
    plugins: Vec<Member>,
    mutating_policies: Option<MutatingPolicies>,
    /// The validating ones.
    policies: Vec<Member>,
    webhooks: Webhooks,
    /// Of mutating policies, of mutating and of validating webhooks.
    times: [Times; 3],
}

/// What is remembered from the first round of changes for the second.
#[derive(Default)]
struct Rounds {
    policies: policies::Rounds,
    webhooks: webhooks::Rounds,
}

impl Chain {
    /// The plugins that are on, in upstream's order; allocation comes last, when nothing can go wrong any more.
    pub(crate) fn new(config: &Config, store: Arc<dyn Store>, credentials: WebhookCredentials) -> Self {
        Self {
            plugins: plugins::selected(config),
            mutating_policies: MutatingPolicies::new(config),
            policies: plugins::policies(config),
            webhooks: Webhooks::new(config, store, credentials),
            times: [policies::MUTATING, webhooks::MUTATING, webhooks::VALIDATING].map(Times::new),
        }
    }

    /// The webhooks.
    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// How long its parts took, and what webhooks did, in Prometheus' format.
    pub(crate) fn write_metrics(&self, text: &mut String) {
        let members = self.plugins.iter().chain(&self.policies).map(|member| &member.times);
        member::write(text, members.chain(&self.times));
        text.push_str(&self.webhooks.metrics());
    }

    async fn admit_by(members: &[Member], attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        for Member { plugin, times, .. } in handling(members, attributes).filter(|member| member.steps.admit) {
            times.of("admit", attributes, plugin.admit(attributes, object)).await?;
        }
        Ok(())
    }

    async fn validate_by(members: &[Member], attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        for Member { plugin, times, .. } in handling(members, attributes).filter(|member| member.steps.validate) {
            times.of("validate", attributes, plugin.validate(attributes, object)).await?;
        }
        Ok(())
    }

    /// Lets policies and then webhooks change the object; whether everybody is to see it once more.
    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiStatus> {
        let mut by_policies = false;
        if let Some(policies) = self.mutating_policies.as_ref().filter(|policies| policies.handles(attributes)) {
            let mutate = policies.mutate(attributes, object, &mut rounds.policies);
            by_policies = self.times[0].of("admit", attributes, mutate).await?;
        }
        let by_webhooks = self.mutate_outside(attributes, Some(object), &mut rounds.webhooks).await?;
        Ok(by_policies || by_webhooks)
    }

    /// Whether a webhook changed the object.
    async fn mutate_outside(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rounds: &mut webhooks::Rounds,
    ) -> Result<bool, ApiStatus> {
        let began = Instant::now();
        let mutate = self.webhooks.mutate(attributes, object, rounds);
        let mutated = self.times[1].of("admit", attributes, mutate).await;
        attributes.told.notes.waited(began.elapsed());
        mutated
    }

    async fn validate_outside(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiStatus> {
        let began = Instant::now();
        let validate = self.webhooks.validate(attributes, object);
        let validated = self.times[2].of("validate", attributes, validate).await;
        attributes.told.notes.waited(began.elapsed());
        validated
    }

    /// Lets plugins, policies and webhooks change the object. What policies and webhooks have changed all see once more.
    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        timed("admit", attributes, self.admit_in_rounds(attributes, object)).await
    }

    async fn admit_in_rounds(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            Self::admit_by(&self.plugins, attributes, object).await?;
            if !self.mutate(attributes, object, &mut rounds).await? {
                break;
            }
        }
        Ok(())
    }

    /// Lets plugins, after them policies, and after them webhooks refuse the object.
    pub(crate) async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let validate = async {
            self.validate_inside(attributes, object).await?;
            self.validate_outside(attributes, Some(object)).await
        };
        timed("validate", attributes, validate).await
    }

    async fn validate_inside(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        Self::validate_by(&self.plugins, attributes, object).await?;
        Self::validate_by(&self.policies, attributes, object).await
    }

    /// Lets plugins and webhooks refuse a deletion; `attributes.old` is what goes.
    pub(crate) async fn validate_deletion(&self, attributes: &Attributes<'_>) -> Result<(), ApiStatus> {
        let mutate = async { self.mutate_outside(attributes, None, &mut webhooks::Rounds::default()).await.map(drop) };
        timed("admit", attributes, mutate).await?;
        let validate = async {
            if let Some(old) = attributes.old {
                self.validate_inside(attributes, old).await?;
            }
            self.validate_outside(attributes, None).await
        };
        timed("validate", attributes, validate).await
    }

    /// Asks policies and webhooks alone, about something that is not stored; they may change it.
    pub(crate) async fn ask(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            if !self.mutate(attributes, object, &mut rounds).await? {
                break;
            }
        }
        Self::validate_by(&self.policies, attributes, object).await?;
        self.validate_outside(attributes, Some(object)).await
    }

    /// What all of them have to say about an object that they let pass.
    pub(crate) async fn warnings(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, ApiStatus> {
        let mut warnings = Vec::new();
        for Member { plugin, .. } in handling(&self.plugins, attributes) {
            warnings.extend(plugin.warnings(attributes, object).await?);
        }
        Ok(warnings)
    }

    pub(crate) async fn reserve(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<Effects, ApiStatus> {
        let mut effects = Effects::default();
        for Member { plugin, times, .. } in self.reserving().filter(|member| member.plugin.handles(attributes)) {
            // Upstream's plugins do this where they validate.
            times.of("validate", attributes, plugin.reserve(attributes, object, &mut effects)).await?;
        }
        Ok(effects)
    }

    pub(crate) async fn release(&self, core: &Core, resource: &Resource, object: &Value) -> Result<Effects, ApiStatus> {
        let mut effects = Effects::default();
        for Member { plugin, .. } in self.reserving() {
            plugin.release(core, resource, object, &mut effects).await?;
        }
        Ok(effects)
    }

    fn reserving(&self) -> impl Iterator<Item = &Member> {
        self.plugins.iter().filter(|member| member.steps.reserve)
    }
}

/// Notes how long a step took.
async fn timed(
    step: &'static str,
    attributes: &Attributes<'_>,
    work: impl Future<Output = Result<(), ApiStatus>>,
) -> Result<(), ApiStatus> {
    let began = Instant::now();
    let done = work.await;
    let operation = attributes.operation.as_str();
    attributes.core.metrics.admitted(step, operation, done.is_err(), began.elapsed());
    done
}

fn handling<'a>(members: &'a [Member], attributes: &'a Attributes<'_>) -> impl Iterator<Item = &'a Member> {
    members.iter().filter(|member| member.plugin.handles(attributes))
}
