//! Keeping the mirrors of static pods right.
//!
//! Invariant: at most one round of requests is under way; a mirror without a static pod is deleted only after the directory
//! was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kedge_meta::ObjectKey;

use super::Manager;
use crate::mirror::{self, MirrorPlan};
use crate::spec;

/// Whether a round is under way.
#[derive(Clone, Default)]
pub(super) struct Guard(Arc<AtomicBool>);

enum Step {
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

impl Manager {
    pub(super) fn mirror_seen(&mut self, mirror: Arc<Pod>) {
        if let Some(hash) = spec::annotation(&mirror, spec::CONFIG_MIRROR_ANNOTATION) {
            self.agent.statuses.observe(hash, &mirror);
        }
        let key = (spec::namespace(&mirror).to_owned(), spec::name(&mirror).to_owned());
        self.mirrors.insert(key, mirror);
        self.reconcile_mirrors();
    }

    pub(super) fn mirror_gone(&mut self, mirror: &Pod) {
        self.mirrors.remove(&(spec::namespace(mirror).to_owned(), spec::name(mirror).to_owned()));
        self.reconcile_mirrors();
    }

    /// Starts a round of requests where something is not right.
    pub(super) fn reconcile_mirrors(&self) {
        if !self.api_synced || !self.static_scanned {
            return;
        }
        let steps = self.mirror_steps();
        if steps.is_empty() || self.mirroring.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let (client, guard) = (self.client.clone(), self.mirroring.clone());
        tokio::spawn(async move {
            for step in steps {
                let (what, result) = match step {
                    Step::Create(mirror) => ("create", mirror::create(&client, *mirror).await),
                    Step::Delete(mirror) => ("delete", mirror::delete(&client, &mirror).await),
                };
                if let Err(error) = result {
                    tracing::debug!(%error, "failed to {what} a mirror pod; the next round tries again");
                }
            }
            guard.0.store(false, Ordering::Relaxed);
        });
    }

    fn mirror_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let node = self.nodes.get(&ObjectKey::new("", &self.agent.config.node_name));
        for pod in self.static_pods.values() {
            let key = (spec::namespace(pod).to_owned(), spec::name(pod).to_owned());
            let mirror = self.mirrors.get(&key);
            match (mirror::plan_mirror(pod, mirror.map(Arc::as_ref)), mirror) {
                // The API accepts a mirror only from its node, so the node has to be there first.
                (MirrorPlan::Create, _) if node.is_some() => {
                    steps.push(Step::Create(Box::new(mirror::mirror_of(pod, node.as_deref()))));
                }
                (MirrorPlan::Replace, Some(mirror)) => steps.push(Step::Delete(mirror.clone())),
                _ => {}
            }
        }
        for (key, mirror) in &self.mirrors {
            let has_pod = |pod: &Arc<Pod>| (spec::namespace(pod), spec::name(pod)) == (key.0.as_str(), key.1.as_str());
            if !self.static_pods.values().any(has_pod) {
                steps.push(Step::Delete(mirror.clone()));
            }
        }
        steps
    }
}
