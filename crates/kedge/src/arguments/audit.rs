//! Flags of the audit log, spelled as upstream spells them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use kedge_supervisor::{AuditOptions, BatchOptions, LogOptions, TruncateOptions, WebhookOptions};

use super::components::duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Audit")]
pub(crate) struct AuditFlags {
    /// Which requests are written down: a Policy of audit.k8s.io/v1 [default: none].
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File of events; - is standard output [default: none].
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// How many days rotated files stay; 0 is for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 366)]
    audit_log_maxage: i64,
    /// How many rotated files stay; 0 is all.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    audit_log_maxbackup: i64,
    /// Megabytes after which the file is rotated; 0 is never.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 100)]
    audit_log_maxsize: i64,
    /// Whether rotated files are compressed.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    audit_log_compress: bool,
    /// How events are written: json or legacy.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    audit_log_format: String,
    /// A kubeconfig that says to which program events are sent [default: none].
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// How long the first retry waits.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, alias = "audit-webhook-batch-initial-backoff")]
    audit_webhook_initial_backoff: Duration,
    /// How events get into the file: batch, blocking (requests wait) or blocking-strict (they fail where that fails).
    #[arg(long, value_name = "MODE", default_value = "blocking")]
    audit_log_mode: String,
    /// API version of events.
    #[arg(long, value_name = "VERSION", default_value = "audit.k8s.io/v1", hide = true)]
    audit_log_version: String,
    /// How many events wait; what comes while so many do is lost. For the mode batch, as the next five.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, hide_short_help = true)]
    audit_log_batch_buffer_size: i64,
    /// How many leave at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, hide_short_help = true)]
    audit_log_batch_max_size: i64,
    /// How long a batch waits to be full.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, hide_short_help = true)]
    audit_log_batch_max_wait: Duration,
    /// Whether batches are held back.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_short_help = true)]
    audit_log_batch_throttle_enable: bool,
    /// Batches in a second, on average.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, hide_short_help = true)]
    audit_log_batch_throttle_qps: f64,
    /// Batches at once after a pause.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_short_help = true)]
    audit_log_batch_throttle_burst: i64,
    /// Whether large events lose their objects.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_short_help = true)]
    audit_log_truncate_enabled: bool,
    /// Bytes of a batch.
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, hide_short_help = true)]
    audit_log_truncate_max_batch_size: i64,
    /// Bytes of an event.
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, hide_short_help = true)]
    audit_log_truncate_max_event_size: i64,
    /// How events are sent: batch, blocking (requests wait) or blocking-strict (they fail where that fails).
    #[arg(long, value_name = "MODE", default_value = "batch")]
    audit_webhook_mode: String,
    /// API version of events.
    #[arg(long, value_name = "VERSION", default_value = "audit.k8s.io/v1", hide = true)]
    audit_webhook_version: String,
    /// How many events wait; what comes while so many do is lost. For the mode batch, as the next five.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, hide_short_help = true)]
    audit_webhook_batch_buffer_size: i64,
    /// How many leave at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 400, hide_short_help = true)]
    audit_webhook_batch_max_size: i64,
    /// How long a batch waits to be full.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, hide_short_help = true)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether batches are held back.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_short_help = true)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches in a second, on average.
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0, hide_short_help = true)]
    audit_webhook_batch_throttle_qps: f64,
    /// Batches at once after a pause.
    #[arg(long, value_name = "NUMBER", default_value_t = 15, hide_short_help = true)]
    audit_webhook_batch_throttle_burst: i64,
    /// Whether large events lose their objects.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_short_help = true)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes of a batch.
    #[arg(long, value_name = "BYTES", default_value_t = 10_485_760, hide_short_help = true)]
    audit_webhook_truncate_max_batch_size: i64,
    /// Bytes of an event.
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, hide_short_help = true)]
    audit_webhook_truncate_max_event_size: i64,
}

impl AuditFlags {
    pub(crate) fn options(&self) -> AuditOptions {
        AuditOptions {
            policy_file: self.audit_policy_file.clone(),
            log: LogOptions {
                path: self.audit_log_path.clone(),
                max_age_days: self.audit_log_maxage,
                max_backups: self.audit_log_maxbackup,
                max_size_megabytes: self.audit_log_maxsize,
                compress: self.audit_log_compress,
                format: self.audit_log_format.clone(),
                version: self.audit_log_version.clone(),
                batch: BatchOptions {
                    mode: self.audit_log_mode.clone(),
                    buffer_size: self.audit_log_batch_buffer_size,
                    max_size: self.audit_log_batch_max_size,
                    max_wait: self.audit_log_batch_max_wait,
                    throttle_enable: self.audit_log_batch_throttle_enable,
                    throttle_qps: self.audit_log_batch_throttle_qps,
                    throttle_burst: self.audit_log_batch_throttle_burst,
                },
                truncate: TruncateOptions {
                    enabled: self.audit_log_truncate_enabled,
                    max_batch_size: self.audit_log_truncate_max_batch_size,
                    max_event_size: self.audit_log_truncate_max_event_size,
                },
            },
            webhook: WebhookOptions {
                config_file: self.audit_webhook_config_file.clone(),
                initial_backoff: self.audit_webhook_initial_backoff,
                version: self.audit_webhook_version.clone(),
                batch: BatchOptions {
                    mode: self.audit_webhook_mode.clone(),
                    buffer_size: self.audit_webhook_batch_buffer_size,
                    max_size: self.audit_webhook_batch_max_size,
                    max_wait: self.audit_webhook_batch_max_wait,
                    throttle_enable: self.audit_webhook_batch_throttle_enable,
                    throttle_qps: self.audit_webhook_batch_throttle_qps,
                    throttle_burst: self.audit_webhook_batch_throttle_burst,
                },
                truncate: TruncateOptions {
                    enabled: self.audit_webhook_truncate_enabled,
                    max_batch_size: self.audit_webhook_truncate_max_batch_size,
                    max_event_size: self.audit_webhook_truncate_max_event_size,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditFlags,
    }

    #[test]
    fn flags_have_the_defaults_of_the_options() {
        assert_eq!(Line::parse_from(["x"]).audit.options(), AuditOptions::default());
        let line = ["x", "--audit-log-path=-", "--audit-log-compress", "--audit-webhook-batch-throttle-enable=false"];
        let options = Line::parse_from(line).audit.options();
        assert_eq!(options.log.path, Some(PathBuf::from("-")));
        assert!(options.log.compress && !options.webhook.batch.throttle_enable);
    }
}
