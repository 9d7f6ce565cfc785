//! The kernel ran out of memory and ended a process: told as an event of the node.
//!
//! Only where the kernel's log can be read. A container that reached its own limit is not meant; its status says
//! `OOMKilled`. Invariant: what was in the log before the start is not told again.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use kedge_client::EventType;

use crate::agent::Agent;

const LOG: &str = "/dev/kmsg";
/// The kernel hands out one whole record for each read, and none is longer.
const RECORD_BYTES: usize = 8192;
/// So many records are read in one go; the others have to wait.
const MAX_RECORDS: usize = 10_000;
const EVERY: Duration = Duration::from_secs(5);

/// A process that was ended because the whole machine had no memory left.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    process: String,
    pid: i64,
}

/// Reads the kernel's log from time to time, for ever; waits without end where it cannot be read.
pub(crate) async fn watch(agent: Arc<Agent>) {
    let log = match open() {
        Ok(log) => log,
        Err(error) => {
            tracing::info!(%error, "SystemOOM is not reported: the kernel's log cannot be read");
            return std::future::pending().await;
        }
    };
    let mut buffer = vec![0; RECORD_BYTES];
    loop {
        tokio::time::sleep(EVERY).await;
        for victim in victims(&log, &mut buffer) {
            let text = format!("System OOM encountered, victim process: {}, pid: {}", victim.process, victim.pid);
            agent.events.node(EventType::Warning, "SystemOOM", text);
        }
    }
}

fn open() -> std::io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut log = File::options().read(true).custom_flags(flags).open(LOG)?;
    log.seek(SeekFrom::End(0))?;
    Ok(log)
}

/// The victims in the records that came since the last time; reading does not wait.
fn victims(mut log: &File, buffer: &mut [u8]) -> Vec<Victim> {
    let mut victims = Vec::new();
    for _ in 0..MAX_RECORDS {
        match log.read(buffer) {
            Ok(0) => break,
            Ok(length) => victims.extend(victim(&String::from_utf8_lossy(&buffer[..length]))),
            // Records were overwritten before they were read; the next read goes on with those that are left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    victims
}

/// The victim that a record of the kernel's log names, where the whole machine was out of memory.
fn victim(record: &str) -> Option<Victim> {
    let (_, text) = record.split_once(';')?;
    let fields = text.lines().next()?.strip_prefix("oom-kill:")?;
    let field =
        |name: &str| fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    if !fields.split(',').any(|field| field == "global_oom") {
        return None;
    }
    Some(Victim { process: field("task")?, pid: field("pid")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_shortage_counts() {
        let global = "4,1187,93,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/kubepods/besteffort/podx/y,task=stress,pid=4321,uid=0\n SUBSYSTEM=x\n";
        let found = Victim { process: "stress".to_owned(), pid: 4321 };
        assert_eq!(victim(global), Some(found));
        let limited = "4,1187,93,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kubepods/podx,task_memcg=/kubepods/podx/y,task=stress,pid=4321,uid=0";
        for record in [limited, "6,1,2,-;usb 1-1: new device", "no record", ""] {
            assert_eq!(victim(record), None, "{record}");
        }
    }
}
