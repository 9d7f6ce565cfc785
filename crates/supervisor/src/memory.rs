//! Keeps an idle process small, for all who run the parts in a process of their own.
//!
//! Invariant: a busy process is left alone. What it runs now would only be read again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// By then informers are in sync and the start's code has run.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How often it is looked whether the process is busy.
const PERIOD: Duration = Duration::from_secs(20);
/// Free heap goes once in so many periods.
const PERIODS_TO_TRIM: u32 = 3;
/// A process that takes more of one core than this has something to do.
const BUSY: f64 = 0.03;

/// Gives back free heap every minute, and code after the start and after each busy time, until the end.
pub(crate) async fn give_memory_back(shutdown: CancellationToken) {
    let mut pause = SETTLED_AFTER;
    let mut code = Code::of_the_start();
    let mut used = kedge_memory::processor_time();
    for round in 0_u32.. {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = kedge_memory::processor_time();
        if code.goes(round == 0, now.saturating_sub(used), pause) {
            kedge_memory::release_code();
        }
        (used, pause) = (now, PERIOD);
        if round % PERIODS_TO_TRIM == 0 {
            // Trimming walks the heap, which may take milliseconds after a burst.
            let _ = tokio::task::spawn_blocking(kedge_memory::release_heap).await;
        }
    }
}

/// Whether code was run that an idle process doesn't need.
struct Code {
    touched: bool,
}

impl Code {
    fn of_the_start() -> Self {
        Self { touched: true }
    }

    /// Whether it is given back now, after `used` of processor time in `period`. The start is over when it is said to be,
    /// whatever goes on since.
    fn goes(&mut self, started: bool, used: Duration, period: Duration) -> bool {
        let busy = used.as_secs_f64() > BUSY * period.as_secs_f64();
        let goes = started || (self.touched && !busy);
        self.touched = busy;
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_goes_after_the_start_and_once_after_each_busy_time() {
        let mut code = Code::of_the_start();
        let periods = [
            (true, 900, true),
            (false, 10, true),
            (false, 10, false),
            (false, 5_000, false),
            (false, 700, false),
            (false, 100, true),
            (false, 100, false),
        ];
        for (round, (started, milliseconds, expected)) in periods.into_iter().enumerate() {
            assert_eq!(code.goes(started, Duration::from_millis(milliseconds), PERIOD), expected, "round {round}");
        }
    }
}
