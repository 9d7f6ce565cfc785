//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

use crate::error::Error;

const POLL: Duration = Duration::from_millis(20);

/// Waits until a condition holds.
pub(crate) fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(Error::NotReached {
                what: format!("{what} did not happen within {} s", patience.as_secs()),
                advice: "try again, or remove the cluster with `kedge cluster delete`".to_owned(),
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
