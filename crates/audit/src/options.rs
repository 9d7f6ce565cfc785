//! Where events go and how, in upstream's flags and with upstream's defaults and bounds.

use std::path::PathBuf;
use std::time::Duration;

const API_VERSION: &str = "audit.k8s.io/v1";

/// Upstream's `--audit-*` flags.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuditOptions {
    /// Which requests are recorded; none where absent.
    pub policy_file: Option<PathBuf>,
    /// A file of events.
    pub log: LogOptions,
    /// A program that takes events.
    pub webhook: WebhookOptions,
}

/// `--audit-log-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogOptions {
    /// The file; `-` is standard output, and nothing is written where absent.
    pub path: Option<PathBuf>,
    /// How many days rotated files stay; 0 is for ever.
    pub max_age_days: i64,
    /// How many rotated files stay; 0 is all.
    pub max_backups: i64,
    /// Megabytes after which the file is rotated; 0 is never.
    pub max_size_megabytes: i64,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// `json` or `legacy`.
    pub format: String,
    /// `audit.k8s.io/v1`.
    pub version: String,
    /// How events get there.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

/// `--audit-webhook-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookOptions {
    /// A kubeconfig that says where to send events; none are sent where absent.
    pub config_file: Option<PathBuf>,
    /// How long the first retry waits.
    pub initial_backoff: Duration,
    /// `audit.k8s.io/v1`.
    pub version: String,
    /// How events get there.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

/// `--audit-*-mode` and `--audit-*-batch-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// `batch`, `blocking` or `blocking-strict`.
    pub mode: String,
    /// How many events wait; what comes while so many do is lost.
    pub buffer_size: i64,
    /// How many leave at once.
    pub max_size: i64,
    /// How long a batch waits to be full.
    pub max_wait: Duration,
    /// Whether batches are held back.
    pub throttle_enable: bool,
    /// Batches in a second, on average.
    pub throttle_qps: f64,
    /// Batches at once after a pause.
    pub throttle_burst: i64,
}

/// `--audit-*-truncate-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TruncateOptions {
    /// Whether large events lose their objects.
    pub enabled: bool,
    /// Bytes of a batch.
    pub max_batch_size: i64,
    /// Bytes of an event.
    pub max_event_size: i64,
}

/// A flag that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(pub String);

/// How a request and its events hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    Batch,
    /// It waits for them to be written.
    Blocking,
    /// It fails where its first event cannot be written.
    BlockingStrict,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            path: None,
            max_age_days: 366,
            max_backups: 100,
            max_size_megabytes: 100,
            compress: false,
            format: "json".to_owned(),
            version: API_VERSION.to_owned(),
            batch: BatchOptions {
                mode: "blocking".to_owned(),
                max_size: 1,
                max_wait: Duration::ZERO,
                throttle_enable: false,
                throttle_qps: 0.0,
                throttle_burst: 0,
                ..BatchOptions::default()
            },
            truncate: TruncateOptions::default(),
        }
    }
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            config_file: None,
            initial_backoff: Duration::from_secs(10),
            version: API_VERSION.to_owned(),
            batch: BatchOptions::default(),
            truncate: TruncateOptions::default(),
        }
    }
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            mode: "batch".to_owned(),
            buffer_size: 10_000,
            max_size: 400,
            max_wait: Duration::from_secs(30),
            throttle_enable: true,
            throttle_qps: 10.0,
            throttle_burst: 15,
        }
    }
}

impl Default for TruncateOptions {
    fn default() -> Self {
        Self { enabled: false, max_batch_size: 10 << 20, max_event_size: 100 << 10 }
    }
}

impl AuditOptions {
    /// All that is wrong.
    pub fn check(&self) -> Vec<OptionError> {
        let mut wrong = Vec::new();
        if self.log.path.is_some() {
            self.log.check(&mut wrong);
        }
        if self.webhook.config_file.is_some() {
            self.webhook.batch.check("webhook", &mut wrong);
            self.webhook.truncate.check("webhook", &mut wrong);
            check_version(&self.webhook.version, &mut wrong);
        }
        wrong.into_iter().map(OptionError).collect()
    }
}

impl LogOptions {
    fn check(&self, wrong: &mut Vec<String>) {
        self.batch.check("log", wrong);
        self.truncate.check("log", wrong);
        check_version(&self.version, wrong);
        if !["legacy", "json"].contains(&self.format.as_str()) {
            wrong.push(format!("invalid audit log format {}, allowed formats are \"legacy,json\"", self.format));
        }
        for (flag, number) in
            [("maxage", self.max_age_days), ("maxbackup", self.max_backups), ("maxsize", self.max_size_megabytes)]
        {
            if number < 0 {
                wrong.push(format!("--audit-log-{flag} {number} can't be a negative number"));
            }
        }
    }
}

fn check_version(version: &str, wrong: &mut Vec<String>) {
    if version != API_VERSION {
        wrong.push(format!("invalid group version, allowed versions are [\"{API_VERSION}\"]"));
    }
}

impl BatchOptions {
    /// Only called once it has been checked.
    pub(crate) fn mode(&self) -> Mode {
        match self.mode.as_str() {
            "blocking" => Mode::Blocking,
            "blocking-strict" => Mode::BlockingStrict,
            _ => Mode::Batch,
        }
    }

    fn check(&self, of: &str, wrong: &mut Vec<String>) {
        match self.mode.as_str() {
            "batch" => {}
            "blocking" | "blocking-strict" => return,
            mode => {
                let allowed = "batch,blocking,blocking-strict";
                return wrong.push(format!("invalid audit {of} mode {mode}, allowed modes are \"{allowed}\""));
            }
        }
        let mut positive = |is: bool, what: &str, number: &dyn std::fmt::Display| {
            if !is {
                wrong.push(format!("invalid audit batch {of} {what} {number}, must be a positive number"));
            }
            is
        };
        let _ = positive(self.buffer_size > 0, "buffer size", &self.buffer_size)
            && positive(self.max_size > 0, "max batch size", &self.max_size)
            && self.throttle_enable
            && positive(self.throttle_qps > 0.0, "throttle QPS", &self.throttle_qps)
            && positive(self.throttle_burst > 0, "throttle burst", &self.throttle_burst);
    }
}

impl TruncateOptions {
    fn check(&self, of: &str, wrong: &mut Vec<String>) {
        let (event, batch) = (self.max_event_size, self.max_batch_size);
        if event <= 0 {
            wrong.push(format!("invalid audit truncate {of} max event size {event}, must be a positive number"));
        } else if batch < event {
            wrong.push(format!(
                "invalid audit truncate {of} max batch size {batch}, must be greater than max event size ({event})"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut AuditOptions), expected: &[&str]) {
        let mut options = AuditOptions::default();
        options.log.path = Some("-".into());
        options.webhook.config_file = Some("w".into());
        change(&mut options);
        let wrong: Vec<String> = options.check().into_iter().map(|error| error.0).collect();
        assert_eq!(wrong, expected);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        check(|_| {}, &[]);
        check(
            |options| options.log.format = "xml".to_owned(),
            &["invalid audit log format xml, allowed formats are \"legacy,json\""],
        );
        check(|options| options.log.max_backups = -1, &["--audit-log-maxbackup -1 can't be a negative number"]);
        check(
            |options| options.log.batch.mode = "x".to_owned(),
            &["invalid audit log mode x, allowed modes are \"batch,blocking,blocking-strict\""],
        );
        check(|options| options.log.batch.buffer_size = 0, &[]);
        check(
            |options| options.webhook.batch.buffer_size = 0,
            &["invalid audit batch webhook buffer size 0, must be a positive number"],
        );
        check(
            |options| options.webhook.truncate.max_batch_size = 1,
            &["invalid audit truncate webhook max batch size 1, must be greater than max event size (102400)"],
        );
        check(
            |options| options.webhook.version = "audit.k8s.io/v1beta1".to_owned(),
            &["invalid group version, allowed versions are [\"audit.k8s.io/v1\"]"],
        );
        check(
            |options| {
                options.webhook.config_file = None;
                options.webhook.batch.mode = "x".to_owned();
            },
            &[],
        );
    }
}
