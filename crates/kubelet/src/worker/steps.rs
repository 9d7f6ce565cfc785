//! The steps of a plan, carried out: sandboxes and containers end, begin and change.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kedge_client::EventType;
use kedge_cri::v1;

use super::{SANDBOX_RETRY, Worker};
use crate::kill;
use crate::plan::{self, Action, Kill, KillReason};
use crate::pod_gate;
use crate::reference;
use crate::runtime_state::PodRuntime;
use crate::sandbox::sandbox_config;
use crate::spec;
use crate::start::{self, StartInput};

/// How old a secret may be that an image is pulled with.
const SECRET_AGE: Duration = Duration::from_secs(45);

impl Worker {
    /// Carries out the steps; how long until a failed one is to be tried again, if one failed.
    pub(super) async fn execute(&mut self, actions: Vec<Action>) -> Option<Duration> {
        let mut retry: Option<Duration> = None;
        let sooner = |retry: Option<Duration>, wait: Duration| Some(retry.map_or(wait, |retry| retry.min(wait)));
        if actions.iter().any(|action| matches!(action, Action::CreateSandbox { changed: true, .. })) {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.agent.events.pod(&self.pod, EventType::Normal, "SandboxChanged", message);
        }
        let secrets = match actions
            .iter()
            .any(|action| matches!(action, Action::Start(_) | Action::StartInit(_) | Action::StartEphemeral(_)))
        {
            true => self.pull_secrets().await,
            false => Vec::new(),
        };
        let before = self.agent.states.get(self.uid());
        let mut down = plan::restarted(&actions);
        let count = actions.len();
        for (index, action) in actions.into_iter().enumerate() {
            if let Action::Start(name) | Action::StartInit(name) | Action::StartEphemeral(name) = &action {
                if !down.is_empty() && !self.starts_at_once(name).await {
                    self.progress().await;
                }
                down.retain(|known| known != name);
            }
            let result = match action {
                Action::KillPod => self.kill_pod().await,
                Action::Kill(kill) => self.kill(&kill).await,
                Action::Resize => match self.resize().await {
                    Ok(()) => Ok(()),
                    // What is to be started does not wait for what is to be changed.
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
                Action::CreateSandbox { attempt, .. } => self.create_sandbox(attempt).await,
                Action::StartEphemeral(name) => match self.start_container(&name, &secrets, &before, true).await {
                    Ok(()) => Ok(()),
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
                Action::StartInit(name) => self.start_container(&name, &secrets, &before, false).await,
                Action::Start(name) => match self.start_container(&name, &secrets, &before, false).await {
                    Ok(()) => Ok(()),
                    // The other containers do not wait for this one.
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
            };
            if let Err(wait) = result {
                return sooner(retry, wait);
            }
            // As with upstream, what is only restarted is not shown as gone.
            if index + 1 < count && down.is_empty() {
                self.progress().await;
            }
        }
        retry
    }

    /// Shows what was done so far before the next step, which may take long.
    async fn progress(&mut self) {
        if self.refresh().await.is_ok() {
            self.publish(false);
        }
    }

    /// Whether a container runs as soon as it is started: nothing has to be pulled, and no hook belongs to its start.
    async fn starts_at_once(&self, name: &str) -> bool {
        let Some(container) = spec::find_container(&self.pod, name) else { return true };
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if hook.is_some() || spec::image_pull_policy(&container) == "Always" {
            return false;
        }
        let Ok(image) = reference::with_default_tag(container.image.as_deref().unwrap_or_default()) else {
            return false;
        };
        let wanted = v1::ImageSpec { image, ..Default::default() };
        matches!(self.agent.runtime.image_status(wanted).await, Ok(Some(_)))
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(u64::try_from(spec::termination_grace_seconds(&self.pod)).unwrap_or(0))
    }

    async fn kill_pod(&mut self) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let killed = kill::kill_containers(&self.agent, &self.pod, &state, self.grace(), true).await;
        let result = match killed {
            Ok(()) => kill::stop_sandboxes(&self.agent, &state).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            self.agent.events.pod(
                &self.pod,
                EventType::Warning,
                "FailedKillPod",
                format!("error killing pod: {error}"),
            );
            SANDBOX_RETRY
        })
    }

    async fn kill(&mut self, wanted: &Kill) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let Some(record) = state.containers.iter().find(|record| record.id == wanted.container_id) else {
            return Ok(());
        };
        let probe = spec::find_container(&self.pod, &wanted.name).and_then(|container| match wanted.reason {
            KillReason::Liveness => container.liveness_probe,
            KillReason::Startup => container.startup_probe,
            KillReason::DefinitionChanged | KillReason::Unknown | KillReason::Resize => None,
        });
        let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let grace = own.map_or(self.grace(), |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let killed = kill::kill_container(&self.agent, &self.pod, record, grace, Some(&wanted.message), true).await;
        killed.map_err(|_| SANDBOX_RETRY)
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<(), Duration> {
        let fails = |worker: &Self, message: String| {
            let message = format!("Failed to create pod sandbox: {message}");
            worker.agent.events.pod(&worker.pod, EventType::Warning, "FailedCreatePodSandBox", message);
            SANDBOX_RETRY
        };
        let handler = self.runtime_handler().await.map_err(|error| fails(self, error))?;
        let config = sandbox_config(&self.agent, &self.pod, attempt, &handler).map_err(|error| fails(self, error))?;
        match self.agent.runtime.run_pod_sandbox(config, &handler).await {
            Ok(_) => Ok(()),
            Err(error) => Err(fails(self, error.to_string())),
        }
    }

    /// The handler that a RuntimeClass names.
    async fn runtime_handler(&self) -> Result<String, String> {
        let class = spec::pod_spec(&self.pod).runtime_class_name.as_deref().filter(|class| !class.is_empty());
        let Some(class) = class else { return Ok(String::new()) };
        let client = self.agent.objects.client().clone();
        let classes = kube::Api::<k8s_openapi::api::node::v1::RuntimeClass>::all(client);
        match classes.get_opt(class).await {
            Ok(Some(found)) => Ok(found.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass {class:?} not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }

    async fn start_container(
        &mut self,
        name: &str,
        secrets: &[Secret],
        before: &PodRuntime,
        ephemeral: bool,
    ) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let Some(sandbox) = state.ready_sandbox() else { return Err(Duration::from_secs(1)) };
        let Some(container) = spec::find_container(&self.pod, name) else { return Ok(()) };
        let config = match sandbox_config(&self.agent, &self.pod, sandbox.attempt, "") {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(pod = spec::format_pod(&self.pod), error, "failed to make the sandbox's configuration");
                return Err(SANDBOX_RETRY);
            }
        };
        if self.gated.as_ref() != Some(&sandbox.id) {
            pod_gate::pass(&self.agent, &self.pod, &sandbox.ips).await;
            self.gated = Some(sandbox.id.clone());
        }
        let volumes = self.volumes.mounted.clone().unwrap_or_default();
        let input = StartInput {
            pod: &self.pod,
            container: &container,
            state: &state,
            before,
            sandbox_id: &sandbox.id,
            sandbox: &config,
            volumes: &volumes,
            secrets,
            pod_ips: &sandbox.ips,
            ephemeral,
            sub_paths: &self.sub_paths,
        };
        match start::start_container(&self.agent, &input).await {
            Ok(()) => {
                self.failures.remove(name);
                Ok(())
            }
            Err(error) => {
                // A pod that waits is looked at now and then; that it still waits is no news.
                if self.failures.get(name) != Some(&error.failure) {
                    tracing::info!(
                        pod = spec::format_pod(&self.pod),
                        container = name,
                        reason = error.failure.reason,
                        message = error.failure.message,
                        "a container was not started"
                    );
                }
                self.failures.insert(name.to_owned(), error.failure);
                Err(error.retry_after)
            }
        }
    }

    async fn pull_secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for reference in spec::pod_spec(&self.pod).image_pull_secrets.as_deref().unwrap_or_default() {
            let found = self.agent.objects.secret(spec::namespace(&self.pod), &reference.name, SECRET_AGE).await;
            match found {
                Ok(secret) => secrets.push(secret.as_ref().clone()),
                Err(error) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    tracing::debug!(%error, secret = reference.name, "no image pull secret");
                    self.agent.events.pod(&self.pod, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        secrets
    }
}
