//! One priority level at work: its queues, who waits in them, and what is counted.
//!
//! All deciding is [`QueueSet`]'s. Invariant: a seat that was given out comes back, whatever becomes of the request, and
//! whoever waits is answered or has gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use kedge_fairness::{
    Arrival, Configured, Demand, Digest, LevelSpec, Limits, QueueSet, Refusal, RetryAfter, Running, Ticket,
    TimedHistogram, Work,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::counts::{Counts, SEAT_BOUNDS, UTILIZATION_BOUNDS, WAITING_BOUNDS};
use super::dump::{About, Executing, Totals};

/// A level.
#[derive(Debug)]
pub(crate) struct Level {
    pub(super) name: String,
    epoch: Instant,
    pub(super) state: Mutex<State>,
}

/// What a level's lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) uid: HeaderValue,
    pub(super) spec: LevelSpec,
    pub(super) limits: Limits,
    /// The most seats for one request; 0 where nothing is said.
    pub(super) max_seats: u64,
    pub(super) queues: QueueSet,
    pub(super) counts: HashMap<Arc<str>, Counts>,
    pub(super) seats: TimedHistogram,
    pub(super) waiting: TimedHistogram,
    pub(super) executing: TimedHistogram,
    pub(super) demanded: TimedHistogram,
    pub(super) totals: Totals,
    /// What runs, by numbers that say nothing.
    pub(super) under_way: HashMap<u64, Executing>,
    next_id: u64,
    demand: Demand,
    waiters: HashMap<u64, Waiter>,
    retry: RetryAfter,
    /// Whether somebody will call for what lingers.
    timer: bool,
}

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Running>,
    request: Request,
    arrived: u64,
}

/// What a request is, for a level.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) schema: Arc<str>,
    pub(super) work: Work,
    pub(super) hash: u64,
    pub(super) is_watch: bool,
    pub(super) about: Arc<About>,
}

/// A request's seats; given back when dropped.
#[derive(Debug)]
pub(super) struct Seats {
    level: Arc<Level>,
    request: Request,
    /// What it is known by while it runs.
    id: u64,
    running: Option<Running>,
}

/// A request is refused: after how many seconds to come again.
#[derive(Debug)]
pub(super) struct Refused(pub(super) u64);

impl Level {
    pub(super) fn new(name: &str, uid: &str, spec: LevelSpec, configured: Configured, epoch: Instant) -> Arc<Self> {
        let now = nanos(epoch);
        let current = kedge_fairness::initial(&configured);
        let state = State {
            uid: header_value(uid),
            spec,
            limits: Limits { configured, current, is_exempt: spec.queuing().is_none(), ..Limits::default() },
            max_seats: 0,
            queues: QueueSet::new(spec.queuing(), current, now),
            counts: HashMap::new(),
            seats: TimedHistogram::new(UTILIZATION_BOUNDS, now),
            waiting: TimedHistogram::new(WAITING_BOUNDS, now),
            executing: TimedHistogram::new(WAITING_BOUNDS, now),
            demanded: TimedHistogram::new(SEAT_BOUNDS, now),
            totals: Totals::default(),
            under_way: HashMap::new(),
            next_id: 0,
            demand: Demand::new(now),
            waiters: HashMap::new(),
            retry: RetryAfter::default(),
            timer: false,
        };
        Arc::new(Self { name: name.to_owned(), epoch, state: Mutex::new(state) })
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.epoch)
    }

    /// Takes up what its object says now.
    pub(super) fn update(&self, uid: &str, spec: LevelSpec) {
        let mut state = self.state.lock();
        state.uid = header_value(uid);
        state.limits.is_exempt = spec.queuing().is_none();
        state.spec = spec;
    }

    /// What others need to know of a request's place before it arrives: the most seats, and how many queues there are.
    pub(super) fn facts(&self) -> (u64, usize, HeaderValue) {
        let state = self.state.lock();
        let queues = state.spec.queuing().map_or(0, |queuing| queuing.queues);
        (state.max_seats, queues, state.uid.clone())
    }

    /// What was in demand since this was asked last goes into its limits.
    pub(super) fn observe(&self) -> Limits {
        let now = self.now();
        let mut state = self.state.lock();
        let observed = state.demand.reset(now);
        let ((waiting, _), (in_use, wanted)) = (state.queues.requests(), state.queues.seats());
        let wanted = if waiting > 0 { (in_use + wanted) as f64 } else { 0.0 };
        Limits { observed, wanted, ..state.limits }
    }

    /// Other limits from now on.
    pub(super) fn apply(self: &Arc<Self>, limits: Limits, server: u64) {
        let now = self.now();
        let mut state = self.state.lock();
        let nominal = limits.configured.nominal;
        let queuing = state.spec.queuing();
        state.limits = limits;
        state.max_seats = match queuing {
            Some(queuing) if queuing.queues > 0 => kedge_fairness::max_seats(nominal, queuing.hand_size as u64),
            _ => 0,
        };
        let denominator = if limits.current > 0 { limits.current } else { (server / 10).max(1) };
        let waiting = queuing.map_or(1, |queuing| (queuing.length_limit * queuing.queues.max(1)).max(1));
        state.seats.set_denominator(now, denominator);
        state.demanded.set_denominator(now, denominator);
        state.executing.set_denominator(now, denominator);
        state.waiting.set_denominator(now, waiting as u64);
        state.queues.configure(now, queuing, limits.current);
        self.settle(&mut state, now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().queues.is_idle()
    }

    /// Forgets the counts of schemas that are no more and have nothing under way.
    pub(super) fn keep_counts(&self, keep: impl Fn(&str) -> bool) {
        self.state.lock().counts.retain(|schema, counts| keep(schema) || counts.is_busy());
    }

    /// Gives a request its seats, after waiting for them no longer than `wait`. Says that it waits by `scarce`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        request: Request,
        wait: Duration,
        scarce: &Notify,
    ) -> Result<Seats, Refused> {
        let (ticket, receiver, arrived) = {
            let now = self.now();
            let mut state = self.state.lock();
            state.counts(&request.schema).estimated.observe(request.work.max_seats() as f64);
            match state.queues.arrive(now, request.work, request.hash) {
                Arrival::Runs(running) => {
                    let id = state.started(&request, &running, running.started());
                    self.settle(&mut state, now);
                    drop(state);
                    return Ok(Seats { level: Arc::clone(self), request, id, running: Some(running) });
                }
                Arrival::Refused(refusal) => {
                    self.settle(&mut state, now);
                    return Err(state.refuse(&request.schema, refusal, now, None));
                }
                Arrival::Waits(ticket, length) => {
                    let (sender, receiver) = oneshot::channel();
                    let waiter = Waiter { sender, request: request.clone(), arrived: now };
                    state.waiters.insert(ticket.id, waiter);
                    state.counts(&request.schema).queued(length, request.work.max_seats());
                    self.settle(&mut state, now);
                    (ticket, receiver, now)
                }
            }
        };
        scarce.notify_one();
        let mut waiting = Wait { level: self, ticket, request, receiver, arrived, is_over: false };
        if let Ok(Ok(running)) = tokio::time::timeout(wait, &mut waiting.receiver).await {
            return Ok(waiting.ran(running));
        }
        waiting.give_up()
    }

    /// Passes seats on to those who waited for them.
    fn settle(self: &Arc<Self>, state: &mut State, now: u64) {
        loop {
            let dispatched = state.queues.take_dispatched();
            if dispatched.is_empty() {
                break;
            }
            for (id, running) in dispatched {
                state.hand_over(id, running, now);
            }
        }
        state.note(now);
        if !state.timer
            && let Some(due) = state.queues.next_release()
        {
            state.timer = true;
            let level = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_nanos(due.saturating_sub(now))).await;
                if let Some(level) = level.upgrade() {
                    level.ring();
                }
            });
        }
    }

    fn ring(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.state.lock();
        state.timer = false;
        state.queues.tick(now);
        self.settle(&mut state, now);
    }

    fn finish(self: &Arc<Self>, request: &Request, id: u64, running: Running) {
        let now = self.now();
        let mut state = self.state.lock();
        state.under_way.remove(&id);
        state.ended(request, &running, now);
        state.queues.finish(now, running);
        self.settle(&mut state, now);
    }
}

impl State {
    pub(super) fn counts(&mut self, schema: &Arc<str>) -> &mut Counts {
        if !self.counts.contains_key(schema) {
            self.counts.insert(Arc::clone(schema), Counts::default());
        }
        self.counts.get_mut(schema).expect("it was put there a moment ago")
    }

    /// Who waits under a number of the queues', and since when.
    pub(super) fn waiter(&self, id: u64) -> Option<(&Request, u64)> {
        self.waiters.get(&id).map(|waiter| (&waiter.request, waiter.arrived))
    }

    /// A request runs; the number is its own until it has ended.
    fn started(&mut self, request: &Request, running: &Running, arrived: u64) -> u64 {
        let started = running.started();
        self.totals.dispatched += 1;
        self.counts(&request.schema).started(running.seats(), started.saturating_sub(arrived));
        let id = self.next_id;
        self.next_id += 1;
        self.under_way.insert(id, Executing { request: request.clone(), queue: running.queue(), arrived, started });
        id
    }

    fn ended(&mut self, request: &Request, running: &Running, now: u64) {
        let took = now.saturating_sub(running.started());
        self.counts(&request.schema).ended(running.seats(), took, request.is_watch);
    }

    fn refuse(&mut self, schema: &Arc<str>, refusal: Refusal, now: u64, waited: Option<u64>) -> Refused {
        match refusal {
            Refusal::TimeOut => self.totals.timed_out += 1,
            Refusal::ConcurrencyLimit | Refusal::QueueFull => self.totals.rejected += 1,
        }
        self.counts(schema).refused(refusal, waited);
        self.note(now);
        Refused(self.retry.refused(now / 1_000_000_000))
    }

    fn hand_over(&mut self, id: u64, running: Running, now: u64) {
        let Some(Waiter { sender, request, .. }) = self.waiters.remove(&id) else {
            return self.queues.finish(now, running);
        };
        self.counts(&request.schema).left_queue(request.work.max_seats());
        // Counted as running by whoever gets it.
        if let Err(running) = sender.send(running) {
            self.queues.finish(now, running);
        }
    }

    fn note(&mut self, now: u64) {
        let ((waiting, running), (in_use, wanted)) = (self.queues.requests(), self.queues.seats());
        self.demand.set(now, in_use + wanted);
        self.demanded.set(now, in_use + wanted);
        self.seats.set(now, in_use);
        self.waiting.set(now, waiting as u64);
        self.executing.set(now, running as u64);
    }
}

/// A request in a queue. Where it is dropped, it has left.
struct Wait<'a> {
    level: &'a Arc<Level>,
    ticket: Ticket,
    request: Request,
    receiver: oneshot::Receiver<Running>,
    arrived: u64,
    /// It got its seats, or has waited long enough; otherwise whoever asked has gone.
    is_over: bool,
}

impl Wait<'_> {
    fn ran(mut self, running: Running) -> Seats {
        self.is_over = true;
        let (level, request) = (Arc::clone(self.level), self.request.clone());
        let id = level.state.lock().started(&request, &running, self.arrived);
        Seats { level, request, id, running: Some(running) }
    }

    /// It has waited long enough; in the last moment it may have got its seats.
    fn give_up(mut self) -> Result<Seats, Refused> {
        self.is_over = true;
        match self.leave() {
            Some(running) => Ok(self.ran(running)),
            None => {
                let now = self.level.now();
                let waited = now.saturating_sub(self.arrived);
                let mut state = self.level.state.lock();
                Err(state.refuse(&self.request.schema, Refusal::TimeOut, now, Some(waited)))
            }
        }
    }

    /// Out of the queue; what was on its way comes back.
    fn leave(&mut self) -> Option<Running> {
        let now = self.level.now();
        let mut state = self.level.state.lock();
        if let Some(waiter) = state.waiters.remove(&self.ticket.id) {
            state.queues.cancel(now, self.ticket);
            state.counts(&waiter.request.schema).left_queue(waiter.request.work.max_seats());
            self.level.settle(&mut state, now);
            return None;
        }
        self.receiver.try_recv().ok()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.level.state.lock().totals.cancelled += 1;
        }
        if let Some(running) = self.leave() {
            let now = self.level.now();
            let mut state = self.level.state.lock();
            state.queues.finish(now, running);
            self.level.settle(&mut state, now);
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.level.finish(&self.request, self.id, running);
        }
    }
}

pub(super) fn nanos(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Uids have no characters that a header can't have.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Which requests of a schema are one flow.
pub(super) fn distinguisher<'a>(schema: &kedge_fairness::FlowSchema, digest: &Digest<'a>) -> &'a str {
    match schema.distinguisher {
        Some(kedge_fairness::Distinguisher::ByUser) => digest.user,
        Some(kedge_fairness::Distinguisher::ByNamespace) => digest.namespace,
        None => "",
    }
}
