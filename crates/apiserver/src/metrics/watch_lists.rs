//! How long it takes until a watch that begins with what there is has sent that.

use std::sync::Arc;
use std::time::Instant;

use kedge_metrics::{Histograms, Text};

use super::Labels;

/// Upper bounds, in seconds.
const SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

#[derive(Debug)]
pub(crate) struct WatchLists(Arc<Histograms>);

impl Default for WatchLists {
    fn default() -> Self {
        Self(Arc::new(Histograms::new(
            "apiserver_watch_list_duration_seconds",
            &["group", "resource", "scope", "version"],
            SECONDS,
            "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
        )))
    }
}

/// A watch that has not sent all yet.
pub(crate) struct WatchList {
    durations: Arc<Histograms>,
    began: Instant,
    labels: [String; 4],
}

impl WatchLists {
    /// A watch that was asked for at `began`.
    pub(crate) fn begin(&self, labels: &Labels, began: Instant) -> WatchList {
        let labels = [&*labels.group, &*labels.resource, labels.scope, &*labels.version].map(str::to_owned);
        WatchList { durations: Arc::clone(&self.0), began, labels }
    }

    pub(super) fn write(&self, text: &mut String) {
        let mut lines = Text::default();
        self.0.write(&mut lines);
        text.push_str(&lines.finish());
    }
}

impl WatchList {
    /// It has sent all.
    pub(crate) fn ended(self) {
        self.durations.observe(&self.labels.each_ref().map(String::as_str), self.began.elapsed());
    }
}
