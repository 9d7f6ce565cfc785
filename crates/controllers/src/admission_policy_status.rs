//! The controller of the statuses of ValidatingAdmissionPolicies: what their expressions say against the types that they
//! match.
//!
//! Invariant: a status is about one generation of a policy, and is written once for it.

mod published;
mod types;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use self::published::Published;
use crate::error::unless_gone;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let policies = starter.informer::<ValidatingAdmissionPolicy>();
    let queue = Queue::new();
    starter.enqueue(&policies, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let controller = PolicyStatus { context: starter.context.clone(), policies };
    starter.work(Arc::new(controller), queue, 1);
}

struct PolicyStatus {
    context: Context,
    policies: Informer<ValidatingAdmissionPolicy>,
}

/// Whether a policy's status is not about its present generation.
fn is_due(policy: &ValidatingAdmissionPolicy) -> bool {
    let generation = policy.metadata.generation.unwrap_or_default();
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    generation > observed
}

impl Controller for PolicyStatus {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(policy) = self.policies.get(key).filter(|policy| is_due(policy)) else { return Ok(Next::Done) };
        let warnings = match &policy.spec {
            Some(spec) => types::check(spec, &Published::find(&self.context.client, spec).await),
            None => Vec::new(),
        };
        let checking = match warnings.is_empty() {
            true => json!({"expressionWarnings": null}),
            false => json!({"expressionWarnings": warnings}),
        };
        let status = json!({"observedGeneration": policy.metadata.generation, "typeChecking": checking});
        let patch = json!({"metadata": {"resourceVersion": policy.metadata.resource_version}, "status": status});
        let policies = Api::<ValidatingAdmissionPolicy>::all(self.context.client.clone());
        unless_gone(policies.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Next::Done)
    }
}
