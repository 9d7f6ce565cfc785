//! Where events end up, and what becomes of events that are too large for it.
//!
//! Invariant: what could not be written is counted, and told once for as long as nothing is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::event::Event;
use crate::log_file::LogFile;
use crate::metrics::Metrics;
use crate::options::TruncateOptions;
use crate::webhook::Webhook;

const HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

/// What takes events.
pub(crate) enum Writer {
    Log { file: Arc<Mutex<LogFile>>, is_legacy: bool },
    Webhook(Webhook),
}

/// A writer and the bounds of what it is given.
pub(crate) struct Target {
    pub(crate) writer: Writer,
    pub(crate) truncate: TruncateOptions,
    pub(crate) metrics: Arc<Metrics>,
    is_failing: AtomicBool,
}

impl Target {
    pub(crate) fn new(writer: Writer, truncate: TruncateOptions, metrics: Arc<Metrics>) -> Self {
        Self { writer, truncate, metrics, is_failing: AtomicBool::new(false) }
    }

    /// Upstream's name of it.
    pub(crate) fn name(&self) -> &'static str {
        match self.writer {
            Writer::Log { .. } => "log",
            Writer::Webhook(_) => "webhook",
        }
    }

    /// Writes events; whether all of them that are small enough have been.
    pub(crate) async fn write(&self, events: &[Arc<Event>]) -> bool {
        let mut texts: Vec<Vec<u8>> = Vec::with_capacity(events.len());
        let (mut size, mut is_written) = (0, true);
        for event in events {
            let Some(text) = self.encode(event) else { continue };
            if self.truncate.enabled && !texts.is_empty() && size + text.len() > bound(self.truncate.max_batch_size) {
                is_written &= self.write_batch(std::mem::take(&mut texts)).await;
                size = 0;
            }
            size += text.len();
            texts.push(text);
        }
        if !texts.is_empty() {
            is_written &= self.write_batch(texts).await;
        }
        is_written
    }

    /// An event as text, without its objects where it is too large; absent where it is too large even so.
    fn encode(&self, event: &Event) -> Option<Vec<u8>> {
        let text = event.item();
        let is_too_large = |text: &[u8]| self.truncate.enabled && text.len() > bound(self.truncate.max_event_size);
        if !is_too_large(&text) {
            return Some(self.formed(event, text));
        }
        let mut smaller = event.clone();
        if smaller.truncate() {
            let text = smaller.item();
            if !is_too_large(&text) {
                return Some(self.formed(&smaller, text));
            }
        }
        self.metrics.lost("truncate", 1);
        tracing::warn!(audit_id = event.audit_id, bytes = text.len(), "an audit event is too large, and lost");
        None
    }

    fn formed(&self, event: &Event, item: Vec<u8>) -> Vec<u8> {
        match self.writer {
            Writer::Webhook(_) => item,
            Writer::Log { is_legacy: true, .. } => event.legacy().into_bytes(),
            Writer::Log { is_legacy: false, .. } => [HEAD, &item[1..], b"\n"].concat(),
        }
    }

    async fn write_batch(&self, texts: Vec<Vec<u8>>) -> bool {
        let number = texts.len();
        let written = match &self.writer {
            Writer::Webhook(webhook) => webhook.send(&texts).await,
            Writer::Log { file, .. } => {
                let file = Arc::clone(file);
                // A slow disk is not for those who answer requests to wait for.
                let append = move || file.lock().append(&texts.concat()).map_err(|error| error.to_string());
                tokio::task::spawn_blocking(append).await.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        match written {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(backend = self.name(), "audit events are written again");
                true
            }
            Ok(()) => true,
            Err(why) => {
                self.metrics.lost(self.name(), number);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(backend = self.name(), why, "audit events cannot be written, and are lost");
                }
                false
            }
        }
    }
}

fn bound(bytes: i64) -> usize {
    usize::try_from(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::event::object;
    use crate::event::tests::event;
    use crate::log_file::Rotation;

    const KEEP: Rotation = Rotation { max_size: 0, max_backups: 0, max_age_days: 0, compress: false };

    fn target(path: &Path, max_event_size: i64) -> Target {
        let file = Arc::new(Mutex::new(LogFile::open(path, KEEP).unwrap()));
        let truncate = TruncateOptions { enabled: true, max_batch_size: 10 << 20, max_event_size };
        Target::new(Writer::Log { file, is_legacy: false }, truncate, Arc::default())
    }

    fn large(id: &str) -> Arc<Event> {
        let mut event = event(id);
        event.request_object = object(&json!({"kind": "Pod", "data": "x".repeat(2000)}));
        Arc::new(event)
    }

    #[tokio::test]
    async fn large_events_lose_their_objects_and_huge_ones_are_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let target = target(&path, 1000);
        let mut huge = event("3");
        huge.request_uri = "x".repeat(2000);
        assert!(target.write(&[Arc::new(event("1")), large("2"), Arc::new(huge)]).await);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ids: Vec<&str> = lines.iter().map(|line| line["auditID"].as_str().unwrap()).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!((&lines[0]["kind"], &lines[0]["requestObject"]), (&json!("Event"), &json!({"kind": "Pod"})));
        let annotations = &lines[1]["annotations"];
        assert_eq!(
            (&lines[1]["requestObject"], &annotations["audit.k8s.io/truncated"]),
            (&Value::Null, &json!("true"))
        );
        assert!(target.metrics.text().contains("apiserver_audit_error_total{plugin=\"truncate\"} 1"));
    }

    #[tokio::test]
    async fn what_a_full_disk_does_not_take_is_counted() {
        let target = target(Path::new("/dev/full"), 1 << 20);
        assert!(!target.write(&[Arc::new(event("1")), Arc::new(event("2"))]).await);
        assert!(!target.write(&[Arc::new(event("3"))]).await);
        assert!(target.metrics.text().contains("apiserver_audit_error_total{plugin=\"log\"} 3"));
    }
}
