//! The metrics of priority and fairness, by upstream's names.

use std::fmt::Write;

use kedge_fairness::Histogram;

use super::Flow;
use super::counts::{Counts, REASONS};
use super::level::State;
use crate::metrics::header;

const PREFIX: &str = "apiserver_flowcontrol_";

/// Name, type, help, and what it says of a schema at a level.
type OfSchema = (&'static str, &'static str, &'static str, fn(&mut String, &str, &str, &Counts));
type OfLevel = (&'static str, &'static str, &'static str, fn(&State) -> f64);
type Timed = (&'static str, &'static str, fn(&mut String, &str, &str, &mut State, u64));

const SCHEMAS: &[OfSchema] = &[
    (
        "rejected_requests_total",
        "counter",
        "Number of requests rejected by API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            for (reason, count) in REASONS.iter().zip(counts.rejected).filter(|(_, count)| *count > 0) {
                let _ = writeln!(text, "{name}{{{labels},reason=\"{}\"}} {count}", reason.as_str());
            }
        },
    ),
    (
        "dispatched_requests_total",
        "counter",
        "Number of requests executed by API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            single(text, name, labels, counts.dispatched);
        },
    ),
    (
        "current_inqueue_requests",
        "gauge",
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            single(text, name, labels, counts.waiting);
        },
    ),
    (
        "current_inqueue_seats",
        "gauge",
        "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            single(text, name, labels, counts.waiting_seats);
        },
    ),
    (
        "current_executing_requests",
        "gauge",
        "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            single(text, name, labels, counts.executing);
        },
    ),
    (
        "current_executing_seats",
        "gauge",
        "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            single(text, name, labels, counts.executing_seats);
        },
    ),
    (
        "request_queue_length_after_enqueue",
        "histogram",
        "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        |text, name, labels, counts| {
            histogram(text, name, labels, &counts.lengths);
        },
    ),
    (
        "request_wait_duration_seconds",
        "histogram",
        "Length of time a request spent waiting in its queue",
        |text, name, labels, counts| {
            for (execute, waited) in ["true", "false"].iter().zip(&counts.waited) {
                histogram(text, name, &format!("{labels},execute=\"{execute}\""), waited);
            }
        },
    ),
    (
        "request_execution_seconds",
        "histogram",
        "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        |text, name, labels, counts| {
            for (kind, took) in ["watch", "regular"].iter().zip(&counts.executed) {
                histogram(text, name, &format!("{labels},type=\"{kind}\""), took);
            }
        },
    ),
    (
        "work_estimated_seats",
        "histogram",
        "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        |text, name, labels, counts| {
            histogram(text, name, labels, &counts.estimated);
        },
    ),
    (
        "watch_count_samples",
        "histogram",
        "count of watchers for mutating requests in API Priority and Fairness",
        |text, name, labels, counts| {
            histogram(text, name, labels, &counts.watchers);
        },
    ),
];

const LEVELS: &[OfLevel] = &[
    ("nominal_limit_seats", "gauge", "Nominal number of execution seats configured for each priority level", |state| {
        state.limits.configured.nominal as f64
    }),
    (
        "lower_limit_seats",
        "gauge",
        "Configured lower bound on number of execution seats available to each priority level",
        |state| state.limits.configured.lower as f64,
    ),
    (
        "upper_limit_seats",
        "gauge",
        "Configured upper bound on number of execution seats available to each priority level",
        |state| state.limits.configured.upper as f64,
    ),
    (
        "current_limit_seats",
        "gauge",
        "current derived number of execution seats available to each priority level",
        |state| state.limits.current as f64,
    ),
    ("demand_seats_high_watermark", "gauge", "High watermark, over last adjustment period, of demand_seats", |state| {
        state.limits.observed.most
    }),
    ("demand_seats_average", "gauge", "Time-weighted average, over last adjustment period, of demand_seats", |state| {
        state.limits.observed.average
    }),
    (
        "demand_seats_stdev",
        "gauge",
        "Time-weighted standard deviation, over last adjustment period, of demand_seats",
        |state| state.limits.observed.deviation,
    ),
    ("demand_seats_smoothed", "gauge", "Smoothed seat demands", |state| state.limits.smoothed),
    ("target_seats", "gauge", "Seat allocation targets", |state| state.limits.target),
];

const TIMED: &[Timed] = &[
    (
        "priority_level_seat_utilization",
        "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
        |text, name, level, state, now| {
            histogram(text, name, &format!("phase=\"executing\",priority_level=\"{level}\""), state.seats.until(now));
        },
    ),
    (
        "priority_level_request_utilization",
        "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)",
        |text, name, level, state, now| {
            histogram(
                text,
                name,
                &format!("phase=\"executing\",priority_level=\"{level}\""),
                state.executing.until(now),
            );
            histogram(text, name, &format!("phase=\"waiting\",priority_level=\"{level}\""), state.waiting.until(now));
        },
    ),
    (
        "demand_seats",
        "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
        |text, name, level, state, now| {
            histogram(text, name, &format!("priority_level=\"{level}\""), state.demanded.until(now));
        },
    ),
];

/// Appends all of them.
pub(super) fn write(flow: &Flow, text: &mut String) {
    let plan = flow.plan.load_full();
    for (name, kind, help, of) in SCHEMAS {
        let name = format!("{PREFIX}{name}");
        header(text, &name, kind, help);
        for level in plan.levels.values() {
            let state = level.state.lock();
            let mut schemas: Vec<_> = state.counts.iter().collect();
            schemas.sort_by_key(|(schema, _)| *schema);
            for (schema, counts) in schemas {
                of(text, &name, &format!("flow_schema=\"{schema}\",priority_level=\"{}\"", level.name), counts);
            }
        }
    }
    for (name, kind, help, of) in LEVELS {
        let name = format!("{PREFIX}{name}");
        header(text, &name, kind, help);
        for level in plan.levels.values() {
            let _ = writeln!(text, "{name}{{priority_level=\"{}\"}} {}", level.name, of(&level.state.lock()));
        }
    }
    for (name, help, of) in TIMED {
        let name = format!("{PREFIX}{name}");
        header(text, &name, "histogram", help);
        for level in plan.levels.values() {
            let now = level.now();
            of(text, &name, &level.name, &mut level.state.lock(), now);
        }
    }
    let help = "Fair fraction of server's concurrency to allocate to each priority level that can use it";
    crate::metrics::single(text, &format!("{PREFIX}seat_fair_frac"), "gauge", help, plan.fair_fraction);
}

fn single(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

fn histogram(text: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    if histogram.total() == 0 {
        return;
    }
    for (bound, count) in histogram.cumulative() {
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.total());
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum());
    let _ = writeln!(text, "{name}_count{{{labels}}} {}", histogram.total());
}
