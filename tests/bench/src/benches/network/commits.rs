//! When the kernel's packet rules change, as seen from outside: by their generation number, which moves with the commit.
//! nft returns later, as the kernel makes it wait until what the transaction removed is freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kedge_netfilter::RulesetGeneration;

/// Between two looks; the error of what is measured.
const PERIOD: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the generation all the time, on a thread in the network namespace of the one that made it.
pub(super) struct Commits {
    seen: Receiver<Instant>,
    ends: Arc<AtomicBool>,
}

impl Commits {
    pub(super) fn watch() -> Result<Self> {
        let (tell, seen) = channel();
        let ends = Arc::new(AtomicBool::new(false));
        let (end, generation) = (ends.clone(), RulesetGeneration::open()?);
        let first = generation.get()?;
        thread::spawn(move || look(&generation, first, &tell, &end));
        Ok(Self { seen, ends })
    }

    /// How long after `began` the first commit since the last question was seen; the others are forgotten.
    pub(super) fn after(&self, began: Instant) -> Result<Duration> {
        loop {
            match self.seen.recv_timeout(PATIENCE) {
                Ok(at) if at >= began => break Ok(at - began),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    break Err(anyhow::anyhow!("no commit was seen")).context("the generation did not move");
                }
            }
        }
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn look(generation: &RulesetGeneration, mut last: u32, tell: &mpsc::Sender<Instant>, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        if let Ok(now) = generation.get()
            && now != last
        {
            last = now;
            // The benchmark may have ended with an error.
            let _ = tell.send(Instant::now());
        }
        thread::sleep(PERIOD);
    }
}
