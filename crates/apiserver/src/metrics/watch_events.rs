//! What watches were sent: how many events, and how large they were.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use kedge_kinds::Kind;
use parking_lot::Mutex;

use super::header;
use super::histogram::Histogram;

/// Upper bounds, in bytes.
const BYTES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0];

/// By group, version and resource.
#[derive(Debug, Default)]
pub(crate) struct WatchEvents(Mutex<BTreeMap<[String; 3], Sent>>);

/// The events of one resource, shared by its watches.
#[derive(Debug, Clone)]
pub(crate) struct Sent(Arc<Mutex<Histogram>>);

impl Sent {
    /// One event left, with so many bytes.
    pub(crate) fn event(&self, bytes: usize) {
        self.0.lock().observe(bytes as f64);
    }
}

impl WatchEvents {
    /// Those of a resource.
    pub(crate) fn of(&self, kind: &Kind) -> Sent {
        let labels = [&kind.group, &kind.version, &kind.resource].map(|label| label.to_string());
        let mut sent = self.0.lock();
        sent.entry(labels).or_insert_with(|| Sent(Arc::new(Mutex::new(Histogram::new(BYTES))))).clone()
    }

    pub(super) fn write(&self, text: &mut String) {
        let sent: Vec<([String; 3], Sent)> =
            self.0.lock().iter().map(|(labels, sent)| (labels.clone(), sent.clone())).collect();
        let labels = |[group, version, resource]: &[String; 3]| {
            format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"")
        };
        header(text, "apiserver_watch_events_total", "counter", "Number of events sent in watch clients");
        for (key, sent) in &sent {
            let _ = writeln!(text, "apiserver_watch_events_total{{{}}} {}", labels(key), sent.0.lock().total());
        }
        header(text, "apiserver_watch_events_sizes", "histogram", "Watch event size distribution in bytes");
        for (key, sent) in &sent {
            sent.0.lock().write(text, "apiserver_watch_events_sizes", &labels(key));
        }
    }
}
