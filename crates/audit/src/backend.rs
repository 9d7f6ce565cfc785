//! How events get to where they end up: at once, with whoever made the request waiting, or in batches some time later.
//!
//! Invariant: in batch mode nobody ever waits: what comes while the queue is full is lost and counted. On closing, what
//! is queued is still written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::options::{BatchOptions, Mode};
use crate::target::{Target, Writer};

/// How many events of requests that wait are written at once, at most.
const GROUP: usize = 256;

/// How many batches are on their way to a webhook at once; while so many are, the queue fills.
const BATCHES: usize = 16;

type Waiting = (Arc<Event>, oneshot::Sender<bool>);

/// The way to a target.
pub(crate) enum Backend {
    /// In batches; nobody waits.
    Queued { queue: Sender<Arc<Event>>, target: Arc<Target> },
    /// One writer takes what those who wait have brought.
    Grouped { queue: Sender<Waiting>, is_strict: bool },
    /// Each event by itself.
    Direct { target: Arc<Target>, is_strict: bool },
}

impl Backend {
    /// Starts what writes; it ends once `closing` is cancelled and everything is written.
    pub(crate) fn start(
        target: Target,
        options: &BatchOptions,
        closing: CancellationToken,
    ) -> (Self, Option<JoinHandle<()>>) {
        let target = Arc::new(target);
        let is_strict = options.mode() == Mode::BlockingStrict;
        match (options.mode(), &target.writer) {
            (Mode::Batch, _) => {
                let (queue, events) = channel(size(options.buffer_size));
                let batches = Batches::new(options);
                let writing = tokio::spawn(write_batches(Arc::clone(&target), events, batches, closing));
                (Self::Queued { queue, target }, Some(writing))
            }
            (_, Writer::Log { .. }) => {
                let (queue, events) = channel(GROUP);
                let writing = tokio::spawn(write_groups(target, events, closing));
                (Self::Grouped { queue, is_strict }, Some(writing))
            }
            (_, Writer::Webhook(_)) => (Self::Direct { target, is_strict }, None),
        }
    }

    /// Whether [`Backend::take`] never waits.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self, Self::Queued { .. })
    }

    /// Takes an event; `false` where it could not be written and the request may not go on without.
    pub(crate) async fn take(&self, event: Arc<Event>) -> bool {
        match self {
            Self::Queued { .. } => {
                self.queue(event);
                true
            }
            Self::Grouped { queue, is_strict } => {
                let (done, written) = oneshot::channel();
                let is_written = queue.send((event, done)).await.is_ok() && written.await.unwrap_or(false);
                is_written || !is_strict
            }
            Self::Direct { target, is_strict } => target.write(&[event]).await || !is_strict,
        }
    }

    /// Queues an event; only in batch mode.
    pub(crate) fn queue(&self, event: Arc<Event>) {
        if let Self::Queued { queue, target } = self
            && queue.try_send(event).is_err()
        {
            target.metrics.lost("buffered", 1);
        }
    }
}

fn size(number: i64) -> usize {
    usize::try_from(number).unwrap_or(1).clamp(1, Semaphore::MAX_PERMITS)
}

/// How batches are made.
struct Batches {
    max_size: usize,
    max_wait: Duration,
    throttle: Option<Throttle>,
}

impl Batches {
    fn new(options: &BatchOptions) -> Self {
        let throttle = || Throttle::new(options.throttle_qps, options.throttle_burst);
        Self {
            max_size: size(options.max_size),
            max_wait: options.max_wait,
            throttle: options.throttle_enable.then(throttle),
        }
    }

    /// The next events: as many as a batch takes, or those that came within the wait; none at the end.
    async fn next(&self, events: &mut Receiver<Arc<Event>>, closing: &CancellationToken) -> Vec<Arc<Event>> {
        let mut batch = Vec::new();
        let first = tokio::select! {
            first = events.recv() => first,
            () = closing.cancelled() => {
                events.close();
                events.recv().await
            }
        };
        batch.extend(first);
        let full = Instant::now() + self.max_wait;
        while !batch.is_empty() && batch.len() < self.max_size {
            let is_closing = closing.is_cancelled();
            if is_closing {
                events.close();
            }
            let next = tokio::select! {
                next = events.recv() => next,
                () = tokio::time::sleep_until(full) => return batch,
                () = closing.cancelled(), if !is_closing => continue,
            };
            match next {
                Some(event) => batch.push(event),
                None => return batch,
            }
        }
        batch
    }
}

/// So many batches in a second on average, and some more after a pause.
struct Throttle {
    interval: Duration,
    burst: f64,
    tokens: f64,
    since: Instant,
}

impl Throttle {
    fn new(qps: f64, burst: i64) -> Self {
        let burst = size(burst) as f64;
        Self { interval: Duration::from_secs_f64(1.0 / qps.max(0.001)), burst, tokens: burst, since: Instant::now() }
    }

    /// Waits for its turn.
    async fn pass(&mut self) {
        let now = Instant::now();
        let gained = now.duration_since(self.since).as_secs_f64() / self.interval.as_secs_f64();
        (self.tokens, self.since) = ((self.tokens + gained).min(self.burst), now);
        if self.tokens < 1.0 {
            let pause = self.interval.mul_f64(1.0 - self.tokens);
            tokio::time::sleep(pause).await;
            (self.tokens, self.since) = (1.0, Instant::now());
        }
        self.tokens -= 1.0;
    }
}

async fn write_batches(
    target: Arc<Target>,
    mut events: Receiver<Arc<Event>>,
    mut batches: Batches,
    closing: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(BATCHES));
    let mut sending = JoinSet::new();
    loop {
        let batch = batches.next(&mut events, &closing).await;
        if batch.is_empty() {
            break;
        }
        if let Some(throttle) = &mut batches.throttle {
            throttle.pass().await;
        }
        while sending.try_join_next().is_some() {}
        match target.writer {
            Writer::Log { .. } => {
                target.write(&batch).await;
            }
            Writer::Webhook(_) => {
                let place = Arc::clone(&places).acquire_owned().await;
                let target = Arc::clone(&target);
                sending.spawn(async move {
                    target.write(&batch).await;
                    drop(place);
                });
            }
        }
    }
    while sending.join_next().await.is_some() {}
}

async fn write_groups(target: Arc<Target>, mut events: Receiver<Waiting>, closing: CancellationToken) {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            number = events.recv_many(&mut waiting, GROUP) => if number == 0 { return },
            () = closing.cancelled(), if !events.is_closed() => {
                events.close();
                continue;
            }
        }
        let (group, done): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
        let is_written = target.write(&group).await;
        for done in done {
            // Whoever waited may be gone.
            let _ = done.send(is_written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn batches_leave_when_they_are_full_or_have_waited() {
        let options = BatchOptions { max_size: 3, max_wait: Duration::from_secs(30), ..BatchOptions::default() };
        let (batches, closing) = (Batches::new(&options), CancellationToken::new());
        let (queue, mut events) = channel(10);
        let event = |id: &str| Arc::new(crate::event::tests::event(id));
        for id in ["1", "2", "3", "4"] {
            queue.try_send(event(id)).unwrap();
        }
        let ids = |batch: Vec<Arc<Event>>| batch.iter().map(|event| event.audit_id.clone()).collect::<Vec<_>>();
        let began = Instant::now();
        assert_eq!(ids(batches.next(&mut events, &closing).await), ["1", "2", "3"]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(ids(batches.next(&mut events, &closing).await), ["4"]);
        assert_eq!(began.elapsed().as_secs(), 30);
        queue.try_send(event("5")).unwrap();
        closing.cancel();
        assert_eq!(ids(batches.next(&mut events, &closing).await), ["5"]);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert!(batches.next(&mut events, &closing).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_held_back() {
        let mut throttle = Throttle::new(10.0, 3);
        let began = Instant::now();
        for _ in 0..3 {
            throttle.pass().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            throttle.pass().await;
        }
        let waited = began.elapsed();
        assert!((Duration::from_millis(1990)..Duration::from_millis(2100)).contains(&waited), "{waited:?}");
    }
}
