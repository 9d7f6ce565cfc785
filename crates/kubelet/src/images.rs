//! Making sure that a container's image is on the machine: pull policies, credentials, back-off, and upstream's events.
//!
//! It knows nothing of containers' lives. Invariant: at most the configured number of pulls run at a time, and an image
//! whose pull failed is not pulled again before its back-off ends.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kedge_client::EventType;
use kedge_cri::v1;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::reference::{self, Credentials};
use crate::restart_backoff::BackoffTable;
use crate::security::ImageUser;
use crate::spec;
use crate::status::StartFailure;

/// Failed pulls, by pod uid and image.
pub(crate) struct PullHistory {
    pub(crate) backoff: BackoffTable<(String, String)>,
    messages: HashMap<(String, String), String>,
}

impl PullHistory {
    pub(crate) fn new() -> Self {
        Self { backoff: BackoffTable::new(), messages: HashMap::new() }
    }

    /// Forgets what belongs to a pod that is gone.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.messages.retain(|(owner, _), _| owner != uid);
    }
}

/// An image that is there.
#[derive(Debug, Clone)]
pub(crate) struct ReadyImage {
    /// What to name in the container's configuration.
    pub(crate) reference: String,
    pub(crate) user: ImageUser,
}

/// Why a container's image is not there, and when to look again.
#[derive(Debug, Clone)]
pub(crate) struct ImageFailure {
    pub(crate) failure: StartFailure,
    pub(crate) retry_after: Duration,
}

impl ImageFailure {
    /// What the event of the container says: the reason, unless the image itself is there.
    pub(crate) fn told(&self) -> &str {
        match self.failure.reason.as_str() {
            "CreateContainerError" => &self.failure.message,
            reason => reason,
        }
    }
}

pub(crate) fn failure(reason: &str, message: String, retry_after: Duration) -> ImageFailure {
    ImageFailure { failure: StartFailure { reason: reason.to_owned(), message }, retry_after }
}

/// How long until an attempt that no back-off governs is repeated.
pub(crate) const RETRY: Duration = Duration::from_secs(10);
/// After a failed pull, the back-off shows this soon.
const SHOW_BACKOFF: Duration = Duration::from_secs(2);

/// What is wanted for a pod.
pub(crate) struct ImageRequest<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) image: &'a str,
    pub(crate) policy: &'a str,
    /// The container that it is for; the pod itself where it is for a volume.
    pub(crate) container: Option<&'a str>,
    pub(crate) secrets: &'a [Secret],
    pub(crate) sandbox: &'a v1::PodSandboxConfig,
}

impl ImageRequest<'_> {
    fn event(&self, agent: &Agent, event_type: EventType, reason: &str, message: String) {
        match self.container {
            Some(container) => agent.events.container(self.pod, container, event_type, reason, message),
            None => agent.events.pod(self.pod, event_type, reason, message),
        }
    }
}

/// Makes sure that the image is there.
pub(crate) async fn ensure_image(agent: &Agent, request: &ImageRequest<'_>) -> Result<ReadyImage, ImageFailure> {
    let wanted = request.image;
    let event =
        |event_type: EventType, reason: &str, message: String| request.event(agent, event_type, reason, message);
    let image = match reference::with_default_tag(wanted) {
        Ok(image) => image,
        Err(error) => {
            let message = format!("Failed to apply default image tag {wanted:?}: {error}");
            event(EventType::Warning, "InspectFailed", message.clone());
            return Err(failure("InvalidImageName", message, RETRY));
        }
    };
    let spec = v1::ImageSpec { image, ..Default::default() };
    let present = match agent.runtime.image_status(spec.clone()).await {
        Ok(present) => present,
        Err(error) => {
            let message = format!("Failed to inspect image {wanted:?}: {error}");
            event(EventType::Warning, "InspectFailed", message.clone());
            return Err(failure("ImageInspectError", message, RETRY));
        }
    };
    let policy = request.policy;
    match present {
        Some(image) if policy != "Always" => {
            let message =
                format!("Container image {wanted:?} already present on machine and can be accessed by the pod");
            event(EventType::Normal, "Pulled", message);
            Ok(ready(&image))
        }
        None if policy == "Never" => {
            let message = format!("Container image {wanted:?} is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", message.clone());
            Err(failure("ErrImageNeverPull", message, RETRY))
        }
        _ => pull(agent, request, spec).await,
    }
}

async fn pull(agent: &Agent, request: &ImageRequest<'_>, image: v1::ImageSpec) -> Result<ReadyImage, ImageFailure> {
    let wanted = request.image;
    let key = (spec::uid(request.pod).to_owned(), wanted.to_owned());
    let event =
        |event_type: EventType, reason: &str, message: String| request.event(agent, event_type, reason, message);
    if let Some((rest, earlier)) = backing_off(agent, &key) {
        let mut message = format!("Back-off pulling image {wanted:?}");
        event(EventType::Normal, "BackOff", message.clone());
        if let Some(earlier) = earlier {
            message = format!("{message}: {earlier}");
        }
        return Err(failure("ImagePullBackOff", message, rest));
    }
    event(EventType::Normal, "Pulling", format!("Pulling image {wanted:?}"));
    let asked = Instant::now();
    // The semaphore is never closed.
    let _permit = agent.pulls.acquire().await;
    let began = Instant::now();
    match pull_with_any(agent, &image, request.secrets, request.sandbox).await {
        Ok(pulled) => {
            let size = pulled.size;
            event(
                EventType::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {wanted:?} in {} ({} including waiting). Image size: {size} bytes.",
                    go_duration(began.elapsed()),
                    go_duration(asked.elapsed())
                ),
            );
            Ok(ready(&pulled))
        }
        Err(error) => {
            event(EventType::Warning, "Failed", format!("Failed to pull image {wanted:?}: {error}"));
            let now = agent.now();
            let mut history = agent.pull_history.lock();
            history.backoff.next(key.clone(), now, now);
            history.backoff.collect(now);
            history.messages.insert(key, format!("ErrImagePull: {error}"));
            Err(failure("ErrImagePull", error, SHOW_BACKOFF))
        }
    }
}

fn backing_off(agent: &Agent, key: &(String, String)) -> Option<(Duration, Option<String>)> {
    let history = agent.pull_history.lock();
    let rest = history.backoff.remaining_since_update(key, agent.now())?;
    Some((rest, history.messages.get(key).cloned()))
}

/// Tries every credential that fits the registry, and none where there is none.
async fn pull_with_any(
    agent: &Agent,
    image: &v1::ImageSpec,
    secrets: &[Secret],
    sandbox: &v1::PodSandboxConfig,
) -> Result<v1::Image, String> {
    let mut attempts: Vec<Option<v1::AuthConfig>> =
        reference::credentials(secrets, &image.image).into_iter().map(|found| Some(auth_config(found))).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let mut errors = Vec::new();
    for auth in attempts {
        match agent.runtime.pull_image(image.clone(), auth, Some(sandbox.clone())).await {
            Ok(_) => {
                let found = agent.runtime.image_status(image.clone()).await.map_err(|error| error.to_string())?;
                return found.ok_or_else(|| format!("image {:?} vanished after it was pulled", image.image));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors.dedup();
    Err(match errors.len() {
        1 => errors.remove(0),
        _ => format!("[{}]", errors.join(", ")),
    })
}

fn auth_config(found: Credentials) -> v1::AuthConfig {
    v1::AuthConfig { username: found.username, password: found.password, ..Default::default() }
}

fn ready(image: &v1::Image) -> ReadyImage {
    let user = match &image.uid {
        Some(uid) => ImageUser { uid: Some(uid.value), name: String::new() },
        // An image that names nobody runs as root.
        None if image.username.is_empty() => ImageUser { uid: Some(0), name: String::new() },
        None => ImageUser { uid: None, name: image.username.clone() },
    };
    ReadyImage { reference: image.id.clone(), user }
}

/// Go's print of a duration, in whole milliseconds.
pub(crate) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (5, "5ms"),
            (1500, "1.5s"),
            (10_000, "10s"),
            (61_000, "1m1s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
