//! The queues of one priority level: fair queuing over virtual time.
//!
//! Each queue has a virtual time at which its next request would start; the waiting request that would finish first runs
//! next. A request holds seats while it runs, and may hold some after its end. Invariants: seats in use never pass the limit
//! but for a single request wider than it; a queue that rests gains no credit; the same calls give the same answers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::deal::deal;
use crate::objects::Queuing;
use crate::work::Work;

/// How long a request is thought to run until it has ended, in nanoseconds.
const ESTIMATED: u64 = 3_000_000;

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Its number.
    pub id: u64,
    queue: usize,
}

/// A request that runs; to be given back with [`QueueSet::finish`].
#[derive(Debug, PartialEq, Eq)]
pub struct Running {
    queue: Option<usize>,
    work: Work,
    started: u64,
}

impl Running {
    /// The seats that it holds.
    pub fn seats(&self) -> u64 {
        self.work.max_seats()
    }

    /// When it began.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// The queue that it came out of; absent where it never was in one.
    pub fn queue(&self) -> Option<usize> {
        self.queue
    }
}

/// A queue as it is at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDump {
    /// Numbers and work of those who wait, the oldest first.
    pub waiting: Vec<(u64, Work)>,
    /// Their work, in seat-nanoseconds.
    pub work_waiting: f64,
    /// How many run.
    pub running: usize,
    /// With how many seats.
    pub seats_in_use: u64,
    /// Virtual time at which its next request starts, in seat-nanoseconds.
    pub next_start: f64,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It runs at once.
    Runs(Running),
    /// It waits; the number is the length of its queue.
    Waits(Ticket, usize),
    /// It is refused.
    Refused(Refusal),
}

/// Why a request is refused, in the words of the metric's label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The level has no queues and no seats.
    ConcurrencyLimit,
    /// Its queue is full.
    QueueFull,
    /// It has waited too long.
    TimeOut,
}

impl Refusal {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    /// Virtual time of its arrival.
    arrival: f64,
    work: Work,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Seat-nanoseconds of what waits.
    work_waiting: f64,
    running: usize,
    seats_in_use: u64,
    /// Virtual time at which its next request starts.
    next_start: f64,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.running > 0
    }

    /// A queue may not save up time in which it had nothing to do.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_start = self.next_start.max(oldest.arrival);
        }
    }
}

/// The queues of a level.
#[derive(Debug)]
pub struct QueueSet {
    /// Absent: no limit at all. Without queues a request runs or is refused.
    queuing: Option<Queuing>,
    limit: u64,
    queues: Vec<Queue>,
    /// Virtual time, in seat-nanoseconds for each active queue.
    progress: f64,
    now: u64,
    robin: usize,
    arrivals: usize,
    next_id: u64,
    waiting: usize,
    running: usize,
    active: usize,
    seats_in_use: u64,
    seats_waiting: u64,
    /// Seats in use through queues.
    queued_seats_in_use: u64,
    lingering: BinaryHeap<Reverse<(u64, u64, usize)>>,
    dispatched: Vec<(u64, Running)>,
}

/// Stands for "no queue" among those that linger.
const NO_QUEUE: usize = usize::MAX;

impl QueueSet {
    /// Queues with nobody in them. Without `queuing` nothing is limited.
    pub fn new(queuing: Option<Queuing>, limit: u64, now: u64) -> Self {
        let mut set = Self {
            queuing: None,
            limit: 0,
            queues: Vec::new(),
            progress: 0.0,
            now,
            robin: 0,
            arrivals: 0,
            next_id: 0,
            waiting: 0,
            running: 0,
            active: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            queued_seats_in_use: 0,
            lingering: BinaryHeap::new(),
            dispatched: Vec::new(),
        };
        set.configure(now, queuing, limit);
        set
    }

    /// Other settings from now on. Whoever waits goes on waiting where it does.
    pub fn configure(&mut self, now: u64, queuing: Option<Queuing>, limit: u64) {
        self.advance(now);
        (self.queuing, self.limit) = (queuing, limit);
        let wanted = queuing.map_or(0, |queuing| queuing.queues);
        if wanted > self.queues.len() {
            self.queues.resize_with(wanted, Queue::default);
        }
        self.shrink();
        self.dispatch();
    }

    /// Another number of seats from now on.
    pub fn set_limit(&mut self, now: u64, limit: u64) {
        self.configure(now, self.queuing, limit);
    }

    /// A request arrives. `hash` is its flow's.
    pub fn arrive(&mut self, now: u64, work: Work, hash: u64) -> Arrival {
        self.advance(now);
        let Some(queuing) = self.queuing else { return Arrival::Runs(self.run(None, work)) };
        if queuing.queues == 0 {
            return match self.has_room(work.max_seats()) {
                true => Arrival::Runs(self.run(None, work)),
                false => Arrival::Refused(Refusal::ConcurrencyLimit),
            };
        }
        let index = self.choose(hash, queuing);
        if self.seats_in_use >= self.limit && self.queues[index].waiting.len() >= queuing.length_limit {
            return Arrival::Refused(Refusal::QueueFull);
        }
        let id = self.enqueue(index, work);
        let length = self.queues[index].waiting.len();
        self.dispatch();
        match self.dispatched.iter().position(|(other, _)| *other == id) {
            Some(at) => Arrival::Runs(self.dispatched.swap_remove(at).1),
            None => Arrival::Waits(Ticket { id, queue: index }, length),
        }
    }

    /// A request has ended; its seats may stay in use for a while.
    pub fn finish(&mut self, now: u64, running: Running) {
        self.advance(now);
        let Running { queue: index, work, started } = running;
        self.running -= 1;
        if let Some(index) = index {
            let queue = &mut self.queues[index];
            queue.running -= 1;
            let took = now.saturating_sub(started) as f64;
            queue.next_start -= work.seats as f64 * (ESTIMATED as f64 - took);
            queue.bound();
            self.active -= usize::from(!queue.is_active());
        }
        match work.lingering {
            0 => self.release(work.max_seats(), index.unwrap_or(NO_QUEUE)),
            time => self.lingering.push(Reverse((now + time, work.max_seats(), index.unwrap_or(NO_QUEUE)))),
        }
        self.dispatch();
    }

    /// A request waits no longer; `false` where it has left its queue already.
    pub fn cancel(&mut self, now: u64, ticket: Ticket) -> bool {
        self.advance(now);
        let Some(queue) = self.queues.get_mut(ticket.queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == ticket.id) else { return false };
        let gone = queue.waiting.remove(at).map_or(Work::ONE, |waiting| waiting.work);
        queue.work_waiting -= total(&gone);
        queue.bound();
        self.active -= usize::from(!queue.is_active());
        self.waiting -= 1;
        self.seats_waiting -= gone.max_seats();
        self.shrink();
        true
    }

    /// Time has passed: seats that lingered may have become free.
    pub fn tick(&mut self, now: u64) {
        self.advance(now);
        self.dispatch();
    }

    /// Those who waited and run now, since the last time this was asked.
    pub fn take_dispatched(&mut self) -> Vec<(u64, Running)> {
        std::mem::take(&mut self.dispatched)
    }

    /// When [`QueueSet::tick`] is to be called, where somebody waits for seats that linger.
    pub fn next_release(&self) -> Option<u64> {
        let Reverse((due, ..)) = self.lingering.peek()?;
        (self.waiting > 0).then_some(*due)
    }

    /// Requests that wait, and that run.
    pub fn requests(&self) -> (usize, usize) {
        (self.waiting, self.running)
    }

    /// Seats that are in use, and that are waited for.
    pub fn seats(&self) -> (u64, u64) {
        (self.seats_in_use, self.seats_waiting)
    }

    /// All queues, for people who look for what holds things up.
    pub fn dump(&self) -> Vec<QueueDump> {
        let dump = |queue: &Queue| QueueDump {
            waiting: queue.waiting.iter().map(|waiting| (waiting.id, waiting.work)).collect(),
            work_waiting: queue.work_waiting,
            running: queue.running,
            seats_in_use: queue.seats_in_use,
            next_start: queue.next_start,
        };
        self.queues.iter().map(dump).collect()
    }

    /// Whether nobody waits and nobody runs.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// How many seats there are.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Moves virtual time on, frees what lingered long enough.
    fn advance(&mut self, now: u64) {
        while let Some(Reverse((due, seats, index))) = self.lingering.peek().copied()
            && due <= now
        {
            self.lingering.pop();
            self.progress_to(due);
            self.release(seats, index);
        }
        self.progress_to(now);
    }

    fn progress_to(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if self.active > 0 {
            let wanted = (self.queued_seats_in_use + self.seats_waiting).min(self.limit);
            self.progress += passed as f64 * wanted as f64 / self.active as f64;
        }
    }

    /// The queue of the hand with the least work before it; where several are equal they take turns.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> usize {
        let mut hand = [0usize; 16];
        let mut held = 0;
        for card in deal(hash, queuing.queues, queuing.hand_size) {
            hand[held] = card;
            held += 1;
        }
        let first = self.arrivals % held.max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        let turns = (0..held).map(|turn| hand[(first + turn) % held]);
        let work = |index: &usize| self.queues[*index].work_waiting;
        turns.min_by(|a, b| work(a).total_cmp(&work(b))).unwrap_or(0)
    }

    fn enqueue(&mut self, index: usize, work: Work) -> u64 {
        let (id, arrival) = (self.next_id, self.progress);
        self.next_id += 1;
        let queue = &mut self.queues[index];
        if !queue.is_active() {
            queue.next_start = arrival;
            self.active += 1;
        }
        queue.waiting.push_back(Waiting { id, arrival, work });
        queue.work_waiting += total(&work);
        queue.bound();
        self.waiting += 1;
        self.seats_waiting += work.max_seats();
        id
    }

    fn dispatch(&mut self) {
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let Some(index) = self.first_to_finish() else { return };
            let queue = &mut self.queues[index];
            let Some(Waiting { id, mut work, .. }) = queue.waiting.pop_front() else { return };
            let spent = total(&work);
            queue.work_waiting = if queue.waiting.is_empty() { 0.0 } else { queue.work_waiting - spent };
            queue.next_start += spent;
            queue.bound();
            self.waiting -= 1;
            self.seats_waiting -= work.max_seats();
            narrow(&mut work, self.limit);
            let running = self.run(Some(index), work);
            self.dispatched.push((id, running));
        }
    }

    /// The queue whose oldest request would finish first, if there is room for it; after it, it is the next one's turn.
    fn first_to_finish(&mut self) -> Option<usize> {
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for turn in 1..=count {
            let index = (self.robin + turn) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else { continue };
            let finish = queue.next_start + total(&oldest.work);
            if best.is_none_or(|(least, _)| finish < least) {
                best = Some((finish, index));
            }
            // The common case: there is nobody else.
            if queue.waiting.len() == self.waiting {
                break;
            }
        }
        let (_, index) = best?;
        let seats = self.queues[index].waiting.front()?.work.max_seats();
        if !self.has_room(seats) {
            return None;
        }
        self.robin = index;
        Some(index)
    }

    /// A request wider than the limit has room where nothing else runs.
    fn has_room(&self, seats: u64) -> bool {
        if seats > self.limit { self.running == 0 } else { self.seats_in_use + seats <= self.limit }
    }

    fn run(&mut self, index: Option<usize>, work: Work) -> Running {
        self.running += 1;
        self.seats_in_use += work.max_seats();
        if let Some(index) = index {
            self.queued_seats_in_use += work.max_seats();
            self.queues[index].running += 1;
            self.queues[index].seats_in_use += work.max_seats();
        }
        Running { queue: index, work, started: self.now }
    }

    fn release(&mut self, seats: u64, index: usize) {
        self.seats_in_use -= seats;
        if index != NO_QUEUE {
            self.queued_seats_in_use -= seats;
            self.queues[index].seats_in_use -= seats;
            self.shrink();
        }
    }

    /// Queues that there are to be no more go when they are empty, the last ones first.
    fn shrink(&mut self) {
        let wanted = self.queuing.map_or(0, |queuing| queuing.queues);
        while self.queues.len() > wanted
            && self.queues.last().is_some_and(|queue| !queue.is_active() && queue.seats_in_use == 0)
        {
            self.queues.pop();
        }
        if self.robin >= self.queues.len() {
            self.robin = 0;
        }
    }
}

/// Seat-nanoseconds that a request is thought to take.
fn total(work: &Work) -> f64 {
    (work.seats * ESTIMATED + work.final_seats * work.lingering) as f64
}

/// What comes after the end of a request may be made narrower and longer.
fn narrow(work: &mut Work, limit: u64) {
    if work.final_seats > limit && limit > 0 {
        work.lingering = work.final_seats * work.lingering / limit;
        work.final_seats = limit;
    }
}

#[cfg(test)]
mod tests;
