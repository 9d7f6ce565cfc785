//! The resource claim controller: makes the claims of pods whose spec names templates, tells the pods, and takes back what
//! is reserved for pods that are gone.
//!
//! Allocates nothing. Invariants: a pod's entry gets one claim; a claim that still serves somebody keeps its allocation.

mod figures;
mod plan;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::error::{ReconcileError, is_namespace_terminating, is_not_found, message_of, unless_gone};
use crate::expectations::Expectations;
use crate::owners::controller_key;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use figures::is_admins;
use plan::{ClaimStep, claim_of_entry, is_given_back, new_claim, plan_claim, template_of, unprotected};

/// What is reconciled: a pod or a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Pod(key) => write!(f, "pod {key}"),
            Key::Claim(key) => write!(f, "claim {key}"),
        }
    }
}

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let pods = starter.informer::<Pod>();
    let claims = starter.informer::<ResourceClaim>();
    let templates = starter.informer::<ResourceClaimTemplate>();
    let known = claims.clone();
    starter.context.metrics.show("resourceclaim-controller", move |text| figures::write(text, &known.list()));
    let queue = Queue::<Key>::new();
    let (of_pods, known) = (queue.clone(), claims.clone());
    starter.feed(&pods, move |change| {
        let pod = change.object();
        let has_entries = plan::entries(pod).next().is_some();
        if !has_entries && !plan::has_extended_resources(pod) {
            return;
        }
        if has_entries && !matches!(change, Change::Deleted(_)) {
            of_pods.add(Key::Pod(object_key(&**pod)));
        }
        // What is reserved for the pod may have to be taken back.
        let reserved = known.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
        for claim in reserved.iter().filter(|claim| plan::serves(claim, pod)) {
            of_pods.add(Key::Claim(object_key(&**claim)));
        }
    });
    let of_claims = queue.clone();
    starter.feed(&claims, move |change| match change {
        Change::Deleted(claim) => {
            controller_key::<Pod>(&claim.metadata).into_iter().for_each(|key| of_claims.add(Key::Pod(key)));
        }
        change => of_claims.add(Key::Claim(object_key(&**change.object()))),
    });
    let (of_templates, known) = (queue.clone(), pods.clone());
    starter.feed(&templates, move |change| {
        let template = change.object();
        let users = known.in_namespace(template.metadata.namespace.as_deref().unwrap_or_default());
        let names = |entry: &PodResourceClaim| template_of(entry) == template.metadata.name.as_deref();
        for pod in users.iter().filter(|pod| plan::entries(pod).any(names)) {
            of_templates.add(Key::Pod(object_key(&**pod)));
        }
    });
    let workers = starter.context.config.concurrency;
    let expectations = Expectations::default();
    let controller = ResourceClaims { context: starter.context.clone(), pods, claims, templates, expectations };
    starter.work(Arc::new(controller), queue, workers);
}

struct ResourceClaims {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    expectations: Expectations,
}

impl Controller for ResourceClaims {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Outcome {
        match key {
            Key::Pod(key) => self.reconcile_pod(key).await,
            Key::Claim(key) => self.reconcile_claim(key).await,
        }
    }
}

impl ResourceClaims {
    async fn reconcile_pod(&self, key: &ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| plan::is_live(pod)) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        if let Some(lag) = self.expectations.lag(key, &self.claims, self.context.now()) {
            return Ok(Next::After(lag));
        }
        let claims = self.claims.in_namespace(&key.namespace);
        let mut statuses = Vec::new();
        for entry in plan::entries(&pod).filter(|entry| template_of(entry).is_some()) {
            let known = claim_of_entry(&pod, entry, &claims);
            let name = match known {
                Some(name) => name,
                None => self.make(key, &pod, entry).await?,
            };
            statuses.push((entry.name.clone(), name));
        }
        self.tell(key, &pod, &statuses).await?;
        Ok(Next::Done)
    }

    async fn make(&self, key: &ObjectKey, pod: &Pod, entry: &PodResourceClaim) -> Result<String, ReconcileError> {
        let failed = |why: String| {
            let text = format!("PodResourceClaim {}: {why}", entry.name);
            self.context.warning(&object_reference(pod), "FailedResourceClaimCreation", text);
        };
        let name = template_of(entry).unwrap_or_default();
        let Some(template) = self.templates.get(&ObjectKey::new(&key.namespace, name)) else {
            let why = format!(
                "resource claim template \"{name}\": resourceclaimtemplate.resource.k8s.io \"{name}\" not found"
            );
            failed(why.clone());
            return Err(ReconcileError::Object(why));
        };
        let claims = Api::<ResourceClaim>::namespaced(self.context.client.clone(), &key.namespace);
        let wanted = new_claim(pod, entry, &template);
        let made = claims.create(&PostParams::default(), &wanted).await;
        self.context.metrics.resources().claim_asked_for(made.is_ok(), is_admins(&wanted));
        match made {
            Ok(claim) => {
                self.expectations.created(key, &claim.metadata, self.context.now());
                Ok(claim.metadata.name.unwrap_or_default())
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    failed(message_of(&error));
                }
                Err(error.into())
            }
        }
    }

    /// Names the claims in the pod's status.
    async fn tell(&self, key: &ObjectKey, pod: &Pod, statuses: &[(String, String)]) -> Result<(), ReconcileError> {
        let shown =
            pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
        let is_shown = |(name, claim): &(String, String)| {
            shown.iter().any(|status| status.name == *name && status.resource_claim_name.as_ref() == Some(claim))
        };
        if statuses.iter().all(is_shown) {
            return Ok(());
        }
        let list: Vec<_> =
            statuses.iter().map(|(name, claim)| json!({ "name": name, "resourceClaimName": claim })).collect();
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "resourceClaimStatuses": list } });
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        match pods.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    async fn reconcile_claim(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(key) else { return Ok(Next::Done) };
        let pods = self.pods.in_namespace(&key.namespace);
        let claims = Api::<ResourceClaim>::namespaced(self.context.client.clone(), &key.namespace);
        match plan_claim(&claim, &pods) {
            ClaimStep::Nothing => {}
            ClaimStep::Status(changed) => {
                let written = claims.replace_status(&key.name, &PostParams::default(), &changed).await;
                if let Ok(written) = &written
                    && is_given_back(written)
                {
                    let open = unprotected(written);
                    unless_gone(claims.replace(&key.name, &PostParams::default(), &open).await)?;
                }
                unless_gone(written)?;
            }
            ClaimStep::Unprotect(changed) => {
                unless_gone(claims.replace(&key.name, &PostParams::default(), &changed).await)?;
            }
            ClaimStep::Delete => {
                let preconditions = Preconditions { uid: claim.metadata.uid.clone(), resource_version: None };
                let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                unless_gone(claims.delete(&key.name, &parameters).await)?;
            }
        }
        Ok(Next::Done)
    }
}
