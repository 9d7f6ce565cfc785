//! The policy and the backends as the API server sees them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kedge_auth::Attributes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::event::Event;
use crate::log_file::{LogFile, Rotation};
use crate::metrics::Metrics;
use crate::options::{AuditOptions, LogOptions, OptionError};
use crate::policy::{Decision, Policy, PolicyError, Stage};
use crate::target::{Target, Writer};
use crate::webhook::{Webhook, WebhookError};

/// How long what is queued may take to be written at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A flag makes no sense.
    #[error(transparent)]
    Option(OptionError),
    /// The policy is not usable.
    #[error("loading audit policy file {path}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PolicyError,
    },
    /// The file of events can't be opened.
    #[error("cannot open the audit log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no way to the webhook.
    #[error("initializing audit webhook")]
    Webhook(#[source] WebhookError),
}

/// Decides what is recorded, and records it.
pub struct Audit {
    policy: Policy,
    backends: Vec<Backend>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    writing: Mutex<Vec<JoinHandle<()>>>,
}

impl Audit {
    /// Reads the policy and opens the backends; `None` where there is no policy or nowhere to write. Must run inside a
    /// tokio runtime.
    pub async fn open(options: &AuditOptions) -> Result<Option<Arc<Self>>, AuditError> {
        if let Some(wrong) = options.check().into_iter().next() {
            return Err(AuditError::Option(wrong));
        }
        let Some(path) = &options.policy_file else { return Ok(None) };
        let policy = Policy::from_file(path).map_err(|source| AuditError::Policy { path: path.clone(), source })?;
        let metrics = Arc::<Metrics>::default();
        let mut targets = Vec::new();
        if let Some(path) = &options.log.path {
            let file = LogFile::open(path, rotation(&options.log));
            let file = file.map_err(|source| AuditError::Log { path: path.clone(), source })?;
            let writer = Writer::Log { file: Arc::new(Mutex::new(file)), is_legacy: options.log.format == "legacy" };
            targets.push((writer, &options.log.truncate, &options.log.batch));
        }
        if let Some(path) = &options.webhook.config_file {
            let webhook = Webhook::open(path, options.webhook.initial_backoff).await.map_err(AuditError::Webhook)?;
            targets.push((Writer::Webhook(webhook), &options.webhook.truncate, &options.webhook.batch));
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let closing = CancellationToken::new();
        let (mut backends, mut writing) = (Vec::new(), Vec::new());
        for (writer, truncate, batch) in targets {
            let target = Target::new(writer, truncate.clone(), Arc::clone(&metrics));
            let (backend, task) = Backend::start(target, batch, closing.clone());
            backends.push(backend);
            writing.extend(task);
        }
        Ok(Some(Arc::new(Self { policy, backends, metrics, closing, writing: Mutex::new(writing) })))
    }

    /// What the policy says of a request; counted, so ask once.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let decision = self.policy.decide(attributes);
        self.metrics.decided(decision.level);
        decision
    }

    /// Records an event, and waits for it to be written where a backend is to be waited for; `false` where the request may
    /// not go on: its first event could not be written, and it must be.
    pub async fn record(&self, event: Event) -> bool {
        self.metrics.events.count(&[]);
        let (event, mut goes_on) = (Arc::new(event), true);
        for backend in &self.backends {
            goes_on &= backend.take(Arc::clone(&event)).await;
        }
        if !goes_on && event.stage == Stage::RequestReceived {
            self.metrics.rejected.count(&[]);
        }
        goes_on
    }

    /// Records an event that nobody waits for.
    pub fn record_later(self: &Arc<Self>, event: Event) {
        if self.backends.iter().any(|backend| !backend.is_queued()) {
            let audit = Arc::clone(self);
            // Requests that end together with the runtime are past recording.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { audit.record(event).await });
            }
            return;
        }
        self.metrics.events.count(&[]);
        let event = Arc::new(event);
        self.backends.iter().for_each(|backend| backend.queue(Arc::clone(&event)));
    }

    /// Its numbers, in Prometheus' format.
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    /// The same where there is no audit: nothing was recorded.
    pub fn metrics_when_off() -> String {
        Metrics::default().text()
    }

    /// Writes what is queued, and takes nothing any more.
    pub async fn close(&self) {
        self.closing.cancel();
        let writing = std::mem::take(&mut *self.writing.lock());
        let ended = async {
            for task in writing {
                // One that panicked has said so.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some audit events could not be written in time, and are lost");
        }
    }
}

fn rotation(options: &LogOptions) -> Rotation {
    Rotation {
        max_size: Rotation::megabytes(options.max_size_megabytes),
        max_backups: usize::try_from(options.max_backups).unwrap_or_default(),
        max_age_days: options.max_age_days,
        compress: options.compress,
    }
}
