//! `/debug/api_priority_and_fairness/*`: levels, queues and requests as they are at the moment, in upstream's tables.
//!
//! For people; columns and their padding are what `grep` and `column` are used to.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kedge_fairness::{Distinguisher, Work};

use super::Flow;
use super::level::{Level, Request, State};
use crate::target::Target;

/// The least width of a column.
const WIDTH: usize = 8;

/// Go's time for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What a request under way is told apart by.
#[derive(Debug)]
pub(super) struct About {
    pub(super) user: String,
    pub(super) verb: &'static str,
    pub(super) path: String,
    pub(super) distinguisher: Option<Distinguisher>,
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Executing {
    pub(super) request: Request,
    pub(super) queue: Option<usize>,
    pub(super) arrived: u64,
    pub(super) started: u64,
}

/// Since the level is there: what became of its requests.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

/// The table that a path below `/debug/api_priority_and_fairness/` names.
pub(super) fn dump(flow: &Flow, name: &str, with_details: bool, now: Timestamp) -> Option<String> {
    let rows = match name {
        "dump_priority_levels" => levels(flow),
        "dump_queues" => queues(flow),
        "dump_requests" => requests(flow, with_details, now),
        _ => return None,
    };
    Some(table(&rows))
}

fn levels(flow: &Flow) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    let plan = flow.plan.load_full();
    for (name, level) in &plan.levels {
        let state = level.state.lock();
        let active = state.queues.dump().iter().filter(|queue| !queue.waiting.is_empty()).count();
        let (waiting, executing) = state.queues.requests();
        let Totals { dispatched, rejected, timed_out, cancelled } = state.totals;
        rows.push(row([
            name.clone(),
            active.to_string(),
            state.queues.is_idle().to_string(),
            plan.quiescing.contains(name).to_string(),
            waiting.to_string(),
            executing.to_string(),
            dispatched.to_string(),
            rejected.to_string(),
            timed_out.to_string(),
            cancelled.to_string(),
        ]));
    }
    rows
}

fn queues(flow: &Flow) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for (name, level) in &flow.plan.load_full().levels {
        for (index, queue) in level.state.lock().queues.dump().into_iter().enumerate() {
            let sum = |of: fn(&Work) -> u64| queue.waiting.iter().map(|(_, work)| of(work)).sum::<u64>().to_string();
            rows.push(row([
                name.clone(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.running.to_string(),
                queue.seats_in_use.to_string(),
                seat_seconds(queue.next_start),
                sum(|work| work.seats),
                sum(Work::max_seats),
                seat_seconds(queue.work_waiting),
            ]));
        }
    }
    rows
}

fn requests(flow: &Flow, with_details: bool, now: Timestamp) -> Vec<Vec<String>> {
    let mut head = row([
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if with_details {
        head.extend(row(["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]));
    }
    let mut rows = vec![head];
    for level in flow.plan.load_full().levels.values() {
        requests_of(level, with_details, now, &mut rows);
    }
    rows
}

fn requests_of(level: &Arc<Level>, with_details: bool, now: Timestamp, rows: &mut Vec<Vec<String>>) {
    let nanos = level.now();
    let time = |then: u64| {
        let ago = SignedDuration::from_nanos(i64::try_from(nanos.saturating_sub(then)).unwrap_or(i64::MAX));
        (now - ago).to_string()
    };
    let state = level.state.lock();
    let has_flows = state.spec.queuing().is_some_and(|queuing| queuing.queues > 1);
    let mut push = |place: [String; 2], request: &Request, arrived: u64, started: Option<u64>| {
        let target = Target::of(&request.about.path);
        let mut cells = row([level.name.clone(), request.schema.to_string()]);
        cells.extend(place);
        cells.push(if has_flows { distinguisher(&request.about, &target) } else { String::new() });
        let Work { seats, final_seats, lingering } = request.work;
        cells.extend(row([
            time(arrived),
            seats.to_string(),
            final_seats.to_string(),
            latency(lingering),
            started.map_or_else(|| NEVER.to_owned(), time),
        ]));
        if with_details {
            cells.extend(details(&request.about, &target));
        }
        rows.push(cells);
    };
    for (index, queue) in state.queues.dump().into_iter().enumerate() {
        for (at, (id, _)) in queue.waiting.into_iter().enumerate() {
            if let Some((request, arrived)) = state.waiter(id) {
                push([index.to_string(), at.to_string()], request, arrived, None);
            }
        }
    }
    for executing in in_order(&state) {
        let queue = executing.queue.map_or_else(|| "-1".to_owned(), |queue| queue.to_string());
        push([queue, "-1".to_owned()], &executing.request, executing.arrived, Some(executing.started));
    }
}

/// What runs, by its queue and by when it came.
fn in_order(state: &State) -> Vec<&Executing> {
    let mut all: Vec<_> = state.under_way.iter().collect();
    all.sort_by_key(|(id, executing)| (executing.queue.is_none(), executing.queue, **id));
    all.into_iter().map(|(_, executing)| executing).collect()
}

fn distinguisher(about: &About, target: &Target) -> String {
    match (about.distinguisher, target) {
        (Some(Distinguisher::ByUser), _) => about.user.clone(),
        (Some(Distinguisher::ByNamespace), Target::Resource(target)) => target.namespace.clone(),
        _ => String::new(),
    }
}

fn details(about: &About, target: &Target) -> Vec<String> {
    let mut cells = row([about.user.as_str(), about.verb, &about.path]);
    cells.extend(match target {
        Target::Resource(target) => row([
            target.namespace.clone(),
            target.name.clone(),
            match target.group.as_str() {
                "" => target.version.clone(),
                group => format!("{group}/{}", target.version),
            },
            target.resource.clone(),
            target.subresource.clone(),
        ]),
        Target::Other => row([""; 5]),
    });
    cells
}

/// Seat-nanoseconds as upstream writes seat-seconds.
fn seat_seconds(nanos: f64) -> String {
    let units = (nanos / 10.0).max(0.0) as u64;
    format!("{}.{:08}ss", units / 100_000_000, units % 100_000_000)
}

/// As Go writes a duration of milliseconds.
fn latency(nanos: u64) -> String {
    match nanos {
        0 => "0s".to_owned(),
        1_000_000_000.. => format!("{}s", nanos as f64 / 1e9),
        _ => format!("{}ms", nanos as f64 / 1e6),
    }
}

fn row<T: Into<String>, const N: usize>(cells: [T; N]) -> Vec<String> {
    cells.map(Into::into).into()
}

/// A comma ends each cell but the last, and blanks fill it.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + 2).max(WIDTH)
    };
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{:<width$}", format!("{cell},")));
        }
        text.push_str(row.last().map_or("", String::as_str));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded() {
        let rows = [row(["Name", "A long title", "End"]), row(["a-long-name", "", "x"])];
        assert_eq!(table(&rows), "Name,        A long title, End\na-long-name, ,             x\n");
    }

    #[test]
    fn numbers_are_written_as_upstream_writes_them() {
        assert_eq!(seat_seconds(3_000_000.0), "0.00300000ss");
        assert_eq!(seat_seconds(12_345_678_901.0), "12.34567890ss");
        let latencies = [0, 5_000_000, 2_500_000, 1_500_000_000].map(latency);
        assert_eq!(latencies, ["0s", "5ms", "2.5ms", "1.5s"]);
    }
}
