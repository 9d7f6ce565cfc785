//! Logs: the last lines of each, and of those before them the ones that tell of trouble.
//!
//! Whether a line tells of trouble is costly to say, and of most lines nobody needs to know: a log is judged from its end.
//! Invariant: a log of any length costs the memory of `tail + trouble` lines and of a window, and all logs of a bundle that
//! of its budget.

use std::io::BufRead;
use std::sync::LazyLock;

use jiff::Timestamp;
use kedge_diagnosis::{Fact, Item, LogFact, LogSource, Place};
use regex::bytes::Regex;

use crate::moments::take_apart;

/// Words of lines that are kept also when many others came after them. ASCII: speed matters here.
static TROUBLE: LazyLock<Regex> = LazyLock::new(|| {
    let words = "error|fail|fatal|panic|refused|timeout|timed out|denied|forbidden|expired|x509|unable|cannot|could not|\
        no such|not found|too long|too many|slow |lost|memory|kill|evict|no space|exceeded|unhealthy|not ready|corrupt|\
        mismatch|invalid|unknown|blocked|shutting down|in use|^[EF][0-9]{4} ";
    Regex::new(&format!("(?i-u){words}")).expect("the words make an expression")
});

/// How much of one log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Last lines.
    pub(crate) tail: usize,
    /// Lines of trouble before those.
    pub(crate) trouble: usize,
    /// Bytes of one line; the rest of it is cut off.
    pub(crate) line: usize,
}

/// Bytes of lines that are held until they are judged.
const WINDOW: usize = 4 << 20;
const BOUNDS: Bounds = Bounds { tail: 300, trouble: 300, line: 4096 };
/// Lines of one bundle until the logs of workloads get less room.
const OF_WORKLOADS: usize = 60_000;
/// Lines of one bundle until every log gets less.
const OF_ALL: usize = 200_000;

/// How many lines of a bundle have been kept: what there is of many logs is spent on the cluster's own.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    lines: usize,
    /// Logs that got less room than others.
    pub(crate) shortened: usize,
}

impl Budget {
    /// What the next log may have.
    pub(crate) fn bounds(&mut self, source: &LogSource) -> Bounds {
        let share = match (is_of_the_cluster(source), self.lines) {
            (true, ..OF_ALL) | (false, ..OF_WORKLOADS) => 1,
            (true, _) | (false, ..OF_ALL) => 10,
            (false, _) => 60,
        };
        self.shortened += usize::from(share > 1);
        Bounds { tail: BOUNDS.tail / share, trouble: BOUNDS.trouble / share, ..BOUNDS }
    }

    /// Counts what was kept.
    pub(crate) fn spend(&mut self, lines: usize) {
        self.lines += lines;
    }

    /// Whether a line that comes by itself has room: where there is little, only one of trouble has.
    pub(crate) fn admits(&mut self, line: &str) -> bool {
        let is_kept = self.lines < OF_ALL || (self.lines < 2 * OF_ALL && TROUBLE.is_match(line.as_bytes()));
        self.lines += usize::from(is_kept);
        is_kept
    }
}

/// Whether a log is of the cluster itself and of its machines, and not of what runs on it.
fn is_of_the_cluster(source: &LogSource) -> bool {
    const NAMESPACES: [&str; 8] = [
        "calico-system",
        "cilium",
        "ingress-nginx",
        "kube-",
        "kubernetes-",
        "local-path-storage",
        "openshift-",
        "tigera-operator",
    ];
    match source {
        LogSource::Container { namespace, .. } => NAMESPACES.iter().any(|prefix| namespace.starts_with(prefix)),
        _ => true,
    }
}

/// Lines of a log as evidence.
pub(crate) fn read_log(
    content: &mut dyn BufRead,
    source: &LogSource,
    place: &Place,
    origin: &str,
    near: Timestamp,
    bounds: Bounds,
) -> Vec<Item> {
    let item = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line);
        let taken = take_apart(&line, near);
        // A journal of the whole machine holds several programs.
        let source = match (source, taken.program) {
            (LogSource::Unit(_), Some("kernel")) => LogSource::Kernel,
            (LogSource::Unit(_), Some(program)) => LogSource::Unit(program.to_owned()),
            _ => source.clone(),
        };
        let fact = Fact::Log(LogFact { source, text: taken.text.to_owned() });
        Item { time: taken.time, place: place.clone(), origin: origin.to_owned(), fact }
    };
    lines(content, bounds).iter().filter(|line| !line.is_empty()).map(item).collect()
}

/// The lines that are kept, in their order.
fn lines(content: &mut dyn BufRead, bounds: Bounds) -> Vec<Vec<u8>> {
    let (mut held, mut trouble) = (Held::default(), Vec::new());
    while next_line(content, &mut held.bytes, bounds.line) {
        held.ends.push(held.bytes.len());
        if held.size() >= WINDOW {
            let older = (held.ends.len() / 2).min(held.ends.len().saturating_sub(bounds.tail));
            keep_last(&mut trouble, held.trouble(older, bounds.trouble), bounds.trouble);
            held.release(older);
        }
    }
    let older = held.ends.len().saturating_sub(bounds.tail);
    keep_last(&mut trouble, held.trouble(older, bounds.trouble), bounds.trouble);
    trouble.extend((older..held.ends.len()).map(|index| held.line(index).to_vec()));
    trouble
}

fn keep_last(kept: &mut Vec<Vec<u8>>, more: Vec<Vec<u8>>, most: usize) {
    kept.extend(more);
    kept.drain(..kept.len().saturating_sub(most));
}

/// Lines that have been read and not judged.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Held {
    fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    fn line(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// The last `most` lines of trouble among the first `count`.
    fn trouble(&self, count: usize, most: usize) -> Vec<Vec<u8>> {
        let lines = (0..count).rev().map(|index| self.line(index));
        let mut trouble: Vec<_> = lines.filter(|line| TROUBLE.is_match(line)).take(most).map(<[u8]>::to_vec).collect();
        trouble.reverse();
        trouble
    }

    /// Lets the first lines go.
    fn release(&mut self, count: usize) {
        let size = count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.bytes.drain(..size);
        self.ends.drain(..count);
        self.ends.iter_mut().for_each(|end| *end -= size);
    }
}

/// Adds the next line without its end, cut at `most` bytes; whether there was one.
fn next_line(content: &mut dyn BufRead, lines: &mut Vec<u8>, most: usize) -> bool {
    let (start, mut has_read) = (lines.len(), false);
    loop {
        // What cannot be read ends the log: what came before it counts.
        let Ok(buffer) = content.fill_buf() else { return has_read };
        if buffer.is_empty() {
            return has_read;
        }
        has_read = true;
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = most.saturating_sub(lines.len() - start);
        lines.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        content.consume(used);
        if end.is_some() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_and_the_trouble_before_it_are_kept() {
        let text: String =
            (0..50).map(|n| if n % 10 == 5 { format!("{n} failed\n") } else { format!("{n} fine\n") }).collect();
        let kept = lines(&mut text.as_bytes(), Bounds { tail: 3, trouble: 2, line: 100 });
        let kept: Vec<_> = kept.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(kept, ["35 failed", "45 failed", "47 fine", "48 fine", "49 fine"]);
    }

    #[test]
    fn long_lines_are_cut_and_the_last_needs_no_end() {
        let kept = lines(&mut "abcdef\ngh".as_bytes(), Bounds { tail: 9, trouble: 9, line: 4 });
        assert_eq!(kept, [b"abcd".to_vec(), b"gh".to_vec()]);
    }

    #[test]
    fn a_long_log_is_kept_as_a_short_one() {
        // Lines as they come and go: in full, cut, and empty.
        let line = |n: usize| match n % 97 {
            0 => String::new(),
            5 => format!("{n} failed"),
            6 => format!("{n} {}", "x".repeat(90)),
            _ => format!("{n} all is well, as it was before"),
        };
        let bounds = Bounds { tail: 7, trouble: 5, line: 40 };
        for count in [3, 1000, 4 * WINDOW / 30] {
            let text: String = (0..count).map(|n| line(n) + "\n").collect();
            let all = (0..count).map(|n| line(n).into_bytes()).map(|mut line| {
                line.truncate(bounds.line);
                line
            });
            let all: Vec<_> = all.collect();
            let (older, tail) = all.split_at(count.saturating_sub(bounds.tail));
            let trouble: Vec<_> = older.iter().filter(|line| line.ends_with(b"failed")).cloned().collect();
            let wanted = [&trouble[trouble.len().saturating_sub(bounds.trouble)..], tail].concat();
            assert!(lines(&mut text.as_bytes(), bounds) == wanted, "{count}");
            // With no room for trouble, or more of it than there is.
            assert!(lines(&mut text.as_bytes(), Bounds { trouble: 0, ..bounds }) == tail, "{count}");
            let most = lines(&mut text.as_bytes(), Bounds { trouble: count, ..bounds });
            assert!(most == [&trouble[..], tail].concat(), "{count}");
        }
    }

    #[test]
    fn many_logs_leave_room_for_the_cluster_s_own() {
        let of = |namespace: &str| {
            let own = str::to_owned;
            LogSource::Container { namespace: own(namespace), pod: own("p"), container: own("c"), previous: false }
        };
        let mut budget = Budget::default();
        let tails = |budget: &mut Budget| ["kube-system", "shop"].map(|namespace| budget.bounds(&of(namespace)).tail);
        assert_eq!(tails(&mut budget), [300, 300]);
        budget.spend(OF_WORKLOADS);
        assert_eq!((tails(&mut budget), budget.shortened), ([300, 30], 1));
        assert!(budget.admits("all is well"));
        budget.spend(OF_ALL);
        assert_eq!((tails(&mut budget), budget.shortened), ([30, 5], 3));
        assert_eq!((budget.admits("all is well"), budget.admits("it failed")), (false, true));
        budget.spend(OF_ALL);
        assert!(!budget.admits("it failed"));
    }
}
