//! A process that can be told from a later one with the same number.
//!
//! Invariant: a process that has ended, or that only its parent still knows (a zombie), does not count as running.

use serde::{Deserialize, Serialize};

/// A process of this machine (or of this process-id namespace).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessMark {
    /// Its id.
    pub pid: i32,
    /// Its start in clock ticks since boot, which a later process with the same id does not share.
    pub start_ticks: u64,
}

impl ProcessMark {
    /// This process.
    pub fn own() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Self { pid, start_ticks: start_ticks(pid).unwrap_or_default() }
    }

    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        start_ticks(pid).map(|start_ticks| Self { pid, start_ticks })
    }

    /// Whether it is still there.
    pub fn is_running(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    start_ticks_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/<pid>/stat`, which follows a name that may hold spaces.
fn start_ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_for_its_parent_has_ended() {
        let stat = |state| format!("7 (a) b) {state} 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4242 1 1");
        assert_eq!(start_ticks_in(&stat("S")), Some(4242));
        assert_eq!(start_ticks_in(&stat("Z")), None);
    }

    #[test]
    fn a_process_is_the_one_it_was() {
        let own = ProcessMark::own();
        assert!(own.is_running());
        assert_eq!(ProcessMark::of(own.pid), Some(own));
        assert!(!ProcessMark { start_ticks: own.start_ticks + 1, ..own }.is_running());
    }
}
