//! Admission: plugins that change or refuse writes, in upstream's order.
//!
//! First every plugin may change the object, then every plugin may refuse it, and last those that hand out something
//! that must be unique (addresses, ports, quota) reserve it together with the commit. Invariant: what is reserved is in the
//! same commit as the object, so that nothing has to be given back when it does not happen.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use kedge_meta::{ApiStatus, GroupVersionKind, UserInfo};
use kedge_store::{Condition, ListRequest, Record, Store, Write};
use serde_json::Value;

use crate::call::Call;
use crate::config::Config;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::store_error;
use crate::target::ResourceTarget;
use member::{Member, Times};
use webhooks::{Rounds, Webhooks};

mod always_pull_images;
mod authorizers;
mod certificates;
mod default_toleration_seconds;
mod device_admin_access;
mod device_taints;
mod limit_ranger;
mod match_conditions;
mod member;
mod namespace_lifecycle;
mod node_restriction;
mod notes;
mod plugins;
mod pod_security;
mod policies;
mod priority;
mod privileged;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod service_allocation;
mod service_families;
mod service_ledger;
mod storage;
mod taint_nodes;
mod webhooks;

pub(crate) use notes::Notes;
pub use plugins::{UnknownPlugin, check_plugins};
pub(crate) use service_allocation::{missing_records, node_ports};
pub(crate) use service_ledger::{Ledger, NODE_PORTS, known_ranges};

/// How often plugins and webhooks may change an object: once more after a webhook has.
const ROUNDS: usize = 2;

/// The group and the resources by which people decide what is let in.
const DECIDERS: (&str, [&str; 6]) = (
    "admissionregistration.k8s.io",
    [
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    ],
);

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// In the words of rules and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What a plugin knows of a request besides the object.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a UserInfo,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The object before, for updates and deletions.
    pub(crate) old: Option<&'a Value>,
    /// What policies and webhooks hear of it besides.
    pub(crate) told: Told<'a>,
}

/// What policies and webhooks hear of a request besides the object, and where they leave word.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    /// `CreateOptions`, `UpdateOptions` and so on; null where there are none.
    pub(crate) options: &'a Value,
    pub(crate) dry_run: bool,
    pub(crate) notes: &'a Notes,
    pub(crate) seen: Seen<'a>,
}

/// As what policies and webhooks see the object.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// As it is.
    Plain,
    /// It is of another kind than the resource's.
    As(&'a GroupVersionKind),
    /// As what it looks like from a subresource.
    Through(&'a dyn Lens),
    /// Not at all: they have been asked already, or this is the server's own business.
    Nothing,
}

impl Seen<'_> {
    fn is_hidden(self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// A view of an object that can be changed.
pub(crate) trait Lens: Send + Sync {
    /// The kind of the view.
    fn kind(&self) -> GroupVersionKind;

    /// What an object looks like.
    fn view(&self, object: &Value) -> Value;

    /// The object that looks like `view`.
    fn with(&self, object: &Value, view: &Value) -> Result<Value, ApiStatus>;
}

impl<'a> Attributes<'a> {
    /// About what a request names in its path.
    pub(crate) fn of(
        core: &'a Core,
        call: &'a Call,
        resource: &'a Resource,
        operation: Operation,
        told: Told<'a>,
    ) -> Self {
        let ResourceTarget { subresource, namespace, name, .. } = call.resource();
        Self { core, user: &call.user, resource, subresource, operation, namespace, name, old: None, told }
    }

    /// Whether the request is about the main resource of `resource` in `group`.
    pub(crate) fn is_main(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource.is(group, resource)
    }

    /// Whether neither policies nor webhooks are asked: about what they are made of, so that what locks everybody out can be
    /// taken away, and about what they have been asked already.
    fn is_hidden_from_outside(&self) -> bool {
        let kind = &self.resource.kind;
        self.told.seen.is_hidden() || (kind.group == DECIDERS.0 && DECIDERS.1.contains(&&*kind.resource))
    }

    /// 403 about the object of the request.
    pub(crate) fn forbidden(&self, why: &str) -> ApiStatus {
        ApiStatus::forbidden(&self.resource.group_resource, self.name, why)
    }
}

/// What is committed together with the write.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) writes: Vec<Write>,
}

/// One admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Whether it looks at such a request at all; cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Changes the object.
    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let _ = (attributes, object);
        Ok(())
    }

    /// Refuses the object. For deletions it is the one that goes.
    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let _ = (attributes, object);
        Ok(())
    }

    /// What whoever writes the object is to be told, where nobody has refused it.
    async fn warnings(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, ApiStatus> {
        let _ = (attributes, object);
        Ok(Vec::new())
    }

    /// Reserves what must be unique. In a dry run everything is given back at once.
    async fn reserve(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let _ = (attributes, object, effects);
        Ok(())
    }

    /// Takes back what an object had reserved, together with its deletion.
    async fn release(
        &self,
        core: &Core,
        resource: &Resource,
        object: &Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let _ = (core, resource, object, effects);
        Ok(())
    }
}

/// The records of a built-in resource in a namespace.
async fn records(core: &Core, group: &str, resource: &str, namespace: &str) -> Result<Vec<Record>, ApiStatus> {
    let registry = core.registry.load();
    let Some(resource) = registry.storage(group, resource) else { return Ok(Vec::new()) };
    let prefix = resource.kind.prefix(namespace);
    let page = core.store.list(ListRequest { prefix, ..ListRequest::default() }).await.map_err(store_error)?;
    Ok(page.records)
}

/// The objects of a built-in resource in a namespace, as they are stored.
async fn objects(core: &Core, group: &str, resource: &str, namespace: &str) -> Result<Vec<Value>, ApiStatus> {
    records(core, group, resource, namespace).await?.iter().map(crate::core::decode).collect()
}

/// The plugins, in order, then policies, then webhooks.
pub(crate) struct Chain {
    plugins: Vec<Member>,
    policies: Vec<Member>,
    webhooks: Webhooks,
    /// Of mutating and of validating webhooks.
    webhook_times: [Times; 2],
}

impl Chain {
    /// The plugins that are on, in upstream's order; allocation comes last, when nothing can go wrong any more.
    pub(crate) fn new(config: &Config, store: Arc<dyn Store>) -> Self {
        let (plugins, policies) = (plugins::selected(config), plugins::policies(config));
        let webhook_times = [webhooks::MUTATING, webhooks::VALIDATING].map(Times::new);
        Self { plugins, policies, webhooks: Webhooks::new(config, store), webhook_times }
    }

    /// The webhooks.
    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// How long its parts took, and what webhooks did, in Prometheus' format.
    pub(crate) fn write_metrics(&self, text: &mut String) {
        let members = self.plugins.iter().chain(&self.policies).map(|member| &member.times);
        member::write(text, members.chain(&self.webhook_times));
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

    /// Whether a webhook changed the object.
    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiStatus> {
        let began = Instant::now();
        let mutate = self.webhooks.mutate(attributes, object, rounds);
        let mutated = self.webhook_times[0].of("admit", attributes, mutate).await;
        attributes.told.notes.waited(began.elapsed());
        mutated
    }

    async fn validate_outside(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiStatus> {
        let began = Instant::now();
        let validate = self.webhooks.validate(attributes, object);
        let validated = self.webhook_times[1].of("validate", attributes, validate).await;
        attributes.told.notes.waited(began.elapsed());
        validated
    }

    /// Lets plugins, policies and webhooks change the object. What a webhook has changed, the others see once more.
    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        timed("admit", attributes, self.admit_in_rounds(attributes, object)).await
    }

    async fn admit_in_rounds(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            Self::admit_by(&self.plugins, attributes, object).await?;
            Self::admit_by(&self.policies, attributes, object).await?;
            if !self.mutate(attributes, Some(object), &mut rounds).await? {
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
        let mutate = async { self.mutate(attributes, None, &mut Rounds::default()).await.map(drop) };
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
            Self::admit_by(&self.policies, attributes, object).await?;
            if !self.mutate(attributes, Some(object), &mut rounds).await? {
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
