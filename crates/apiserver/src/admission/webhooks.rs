//! Admission webhooks: programs outside that change or refuse requests.
//!
//! Which of them are asked is decided in `subject.rs`, how their answers are read in `kedge_webhooks`. Invariants: no
//! webhook is asked about configurations of webhooks or about policies, so that what locks everybody out can be taken
//! away; none is asked while anything of the store is held.

mod ask;
mod configurations;
mod resolver;
mod subject;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use kedge_meta::ApiStatus;
use kedge_store::Store;
use kedge_webhooks::{Client, Credentials, Hook, HookKind, Metrics};
use serde_json::Value;

use super::Attributes;
use crate::config::Config;
use crate::reply::store_error;
use ask::{Asking, Place, Settled};
use configurations::Configurations;
use subject::Subject;

pub(super) const MUTATING: &str = "MutatingAdmissionWebhook";
pub(super) const VALIDATING: &str = "ValidatingAdmissionWebhook";

const MUTATING_PREFIX: &str = "/registry/admissionregistration.k8s.io/mutatingwebhookconfigurations/";
const VALIDATING_PREFIX: &str = "/registry/admissionregistration.k8s.io/validatingwebhookconfigurations/";

/// How this server shows webhooks who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookCredentials {
    /// Those that change objects.
    pub mutating: Credentials,
    /// Those that only refuse.
    pub validating: Credentials,
}

impl WebhookCredentials {
    fn of(&self, kind: HookKind) -> &Credentials {
        match kind {
            HookKind::Mutating => &self.mutating,
            HookKind::Validating => &self.validating,
        }
    }
}

/// The webhooks and the way to them.
pub(crate) struct Webhooks {
    client: Arc<Client>,
    credentials: WebhookCredentials,
    metrics: Metrics,
    mutating: Option<Configurations>,
    validating: Option<Configurations>,
}

/// What is remembered between the first and the second time that mutating webhooks are asked about one object.
#[derive(Default)]
pub(crate) struct Rounds {
    hooks: Option<Arc<Vec<Hook>>>,
    /// Those that were asked and want to be asked again where somebody changes the object.
    asked: BTreeSet<usize>,
    /// Those of them after which somebody did.
    again: BTreeSet<usize>,
    last_output: Option<Value>,
}

impl Webhooks {
    /// All webhooks in the store, found through its Services.
    pub(crate) fn new(config: &Config, store: Arc<dyn Store>, credentials: WebhookCredentials) -> Self {
        let is_on = |name: &str| !config.disable_admission_plugins.iter().any(|off| off == name);
        Self {
            client: Arc::new(Client::new(Arc::new(resolver::Endpoints::new(store)))),
            credentials,
            metrics: Metrics::default(),
            mutating: is_on(MUTATING).then(|| Configurations::new(MUTATING_PREFIX)),
            validating: is_on(VALIDATING).then(|| Configurations::new(VALIDATING_PREFIX)),
        }
    }

    /// What calls them; conversions go the same way.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Their numbers, in Prometheus' format.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.text() + &self.client.metrics()
    }

    async fn hooks(
        &self,
        configurations: Option<&Configurations>,
        attributes: &Attributes<'_>,
    ) -> Result<Option<Arc<Vec<Hook>>>, ApiStatus> {
        let Some(configurations) = configurations.filter(|_| !attributes.is_hidden_from_outside()) else {
            return Ok(None);
        };
        let hooks = configurations.current(&*attributes.core.store).await.map_err(store_error)?;
        Ok(Some(hooks).filter(|hooks| !hooks.is_empty()))
    }

    /// Lets mutating webhooks change the object (absent for deletions), one after another; whether one of them did. The
    /// second time with the same `rounds` only those are asked that want to be asked again.
    pub(super) async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiStatus> {
        let is_second = rounds.hooks.is_some();
        if rounds.hooks.is_none() {
            rounds.hooks = self.hooks(self.mutating.as_ref(), attributes).await?;
        }
        let Some(hooks) = rounds.hooks.clone() else { return Ok(false) };
        let subject = Subject::of(attributes);
        let mut current = object.as_deref().map(|object| subject.seen(object));
        let old = attributes.old.map(|old| subject.seen(old));
        if is_second && rounds.last_output != current {
            rounds.again.append(&mut rounds.asked);
        }
        let mut has_changed = false;
        for (index, hook) in hooks.iter().enumerate() {
            let place = Place { round: usize::from(is_second), index };
            let asking = Asking::new(self, &subject, hook, HookKind::Mutating, place);
            let Some(invocation) = asking.invocation(current.as_ref(), old.as_ref()).await? else { continue };
            if is_second && !rounds.again.contains(&index) {
                continue;
            }
            let answer = asking.ask(&invocation).await;
            let changed = match &answer {
                Ok(Settled::Changed(new)) => current.as_ref().is_some_and(|before| new != before),
                _ => false,
            };
            asking.note_mutation(changed);
            if let (Settled::Changed(new), true) = (answer?, changed) {
                current = Some(new);
                has_changed = true;
                rounds.again.append(&mut rounds.asked);
            }
            if hook.is_reinvoked {
                rounds.asked.insert(index);
            }
        }
        if let (true, Some(object), Some(current)) = (has_changed, object, &current) {
            subject.take_over(object, current)?;
        }
        rounds.last_output = current;
        Ok(has_changed)
    }

    /// Asks all validating webhooks at once; the first refusal in their order counts.
    pub(super) async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiStatus> {
        let Some(hooks) = self.hooks(self.validating.as_ref(), attributes).await? else { return Ok(()) };
        let subject = Subject::of(attributes);
        let object = object.map(|object| subject.seen(object));
        let old = attributes.old.map(|old| subject.seen(old));
        let mut invocations = Vec::new();
        for hook in hooks.iter() {
            let place = Place { round: 0, index: invocations.len() };
            let asking = Asking::new(self, &subject, hook, HookKind::Validating, place);
            if let Some(invocation) = asking.invocation(object.as_ref(), old.as_ref()).await? {
                invocations.push((asking, invocation));
            }
        }
        let answers = join_all(invocations.iter().map(|(asking, invocation)| asking.ask(invocation))).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}
