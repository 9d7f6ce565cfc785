//! Waiting for conditions, with a deadline and the last thing seen.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Waits until `check` answers `Ok`; panics with its last `Err` after `patience`.
pub fn eventually<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what} did not happen within {} s; last seen:\n{seen}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
