//! A place that a request keeps until its answer has been sent, or for so long.
//!
//! Invariant: who reads an answer slowly, or not at all, keeps nobody else out for longer than a request may take.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Place;

struct Held {
    place: Arc<Mutex<Option<Place>>>,
    timer: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.timer.abort();
        self.place.lock().take();
    }
}

/// Keeps a place until this is dropped or `limit` is over.
pub(crate) fn hold(place: Place, limit: Duration) -> Box<dyn Send + Sync> {
    let place = Arc::new(Mutex::new(Some(place)));
    let held = Arc::clone(&place);
    let timer = tokio::spawn(async move {
        tokio::time::sleep(limit).await;
        held.lock().take();
    });
    Box::new(Held { place, timer: timer.abort_handle() })
}
