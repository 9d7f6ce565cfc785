//! Lines of logs as evidence: only those whose trouble still holds.
//!
//! A log is full of troubles that are over. One holds where no later line of the same program says that it passed, and
//! where its line is recent: held against the time of the look, or against the program's last words if it does not run
//! now. Lines without a time (a person pasted them) are taken as recent. Invariant: every rule that reads logs asks here.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::{LogFact, LogSource};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{container_statuses, text};

/// Seconds for which a line speaks of the present.
const RECENT: i64 = 15 * 60;
/// Seconds within which a service that ends at its start is started again.
const JUST_NOW: i64 = 30;

/// A trouble that one log tells of and that holds.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// Its first line.
    pub(super) first: usize,
    /// Its last line.
    pub(super) last: usize,
    /// The last line's item.
    pub(super) item: &'a Item,
    /// The last line.
    pub(super) line: &'a LogFact,
}

impl Told<'_> {
    /// The items that prove it: the first line, which is its onset, and the last.
    pub(super) fn evidence(&self) -> Vec<usize> {
        if self.first == self.last { vec![self.last] } else { vec![self.first, self.last] }
    }

    /// A finding of it, where the line was read.
    pub(super) fn finding(&self, subject: Subject, certainty: Certainty, text: String, repair: Repair) -> Finding {
        Finding::failure(subject, self.item, certainty, text, self.evidence(), repair)
    }
}

/// One for each log with a wanted line whose trouble holds; `passed` picks the lines that say that it is over.
pub(super) fn told<'a>(
    evidence: &'a Evidence,
    wanted: impl Fn(&LogFact) -> bool,
    passed: impl Fn(&LogFact) -> bool,
) -> Vec<Told<'a>> {
    told_within(evidence, RECENT, wanted, passed)
}

/// A finding with its machine for each log with a line whose trouble holds.
pub(super) fn told_of_machines(
    evidence: &Evidence,
    wanted: impl Fn(&LogFact) -> bool,
    passed: impl Fn(&LogFact) -> bool,
    tell: impl Fn(&str) -> (String, Repair),
) -> Vec<Finding> {
    let told = told(evidence, wanted, passed);
    let findings = told.iter().map(|told| {
        let (text, repair) = tell(told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Proven, text, repair)
    });
    one_of_each_machine(findings)
}

/// Of several findings of one machine, the first: logs repeat each other.
pub(super) fn one_of_each_machine(findings: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        if !kept.iter().any(|known| known.place == finding.place) {
            kept.push(finding);
        }
    }
    kept
}

/// Whether a text has all words of one of its forms: the old ones and the new.
pub(super) fn says(text: &str, forms: &[&[&str]]) -> bool {
    forms.iter().any(|words| words.iter().all(|word| has(text, word)))
}

/// Whether a text has a word. Rules ask it of each line of each log: the standard library looks for up to so many bytes at
/// once, and must prepare itself for more, which takes longer than the look.
fn has(text: &str, word: &str) -> bool {
    const AT_ONCE: usize = 32;
    let start = word.get(..AT_ONCE).unwrap_or_default();
    text.contains(start) && text.contains(word)
}

/// The same for what ends a service at its start: where it runs by now, only what it said just now counts.
pub(super) fn told_of_starts(
    evidence: &Evidence,
    wanted: impl Fn(&LogFact) -> bool,
    tell: impl Fn(&str) -> (String, Repair),
) -> Vec<Finding> {
    let told = told(evidence, wanted, |line| says(&line.text, &[&["Starting kubelet main sync loop"]]));
    let holding = told.iter().filter(|told| {
        let is_running = is_running(evidence, &told.item.place, &told.line.source) == Some(true);
        !is_running || is_recent(evidence, JUST_NOW, told.item, &told.line.source)
    });
    one_of_each_machine(holding.map(|told| {
        let (text, repair) = tell(told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Proven, text, repair)
    }))
}

/// Whether a kubelet wrote a line, or a person pasted it.
pub(super) fn is_of_kubelet(line: &LogFact) -> bool {
    let names = ["kubelet", "kedge-kubelet", "kedge", "k3s", "k3s-agent", "rke2-server", "rke2-agent"];
    matches!(line.source, LogSource::Command(_)) || names.iter().any(|name| line.source.is(name))
}

/// The same with another span for which a line speaks of the present, in seconds.
pub(super) fn told_within<'a>(
    evidence: &'a Evidence,
    span: i64,
    wanted: impl Fn(&LogFact) -> bool,
    passed: impl Fn(&LogFact) -> bool,
) -> Vec<Told<'a>> {
    let mut told: BTreeMap<(&Place, Program<'a>), Told<'a>> = BTreeMap::new();
    for (index, item, line) in evidence.logs() {
        let is_wanted = wanted(line);
        if !is_wanted && !passed(line) {
            continue;
        }
        let program = (&item.place, Program::of(&line.source));
        if !is_wanted {
            told.remove(&program);
            continue;
        }
        let first = told.get(&program).map_or(index, |earlier| earlier.first);
        told.insert(program, Told { first, last: index, item, line });
    }
    told.into_values().filter(|told| is_recent(evidence, span, told.item, &told.line.source)).collect()
}

/// What writes a log, over its restarts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Program<'a> {
    Kernel,
    Unit(&'a str),
    Container(&'a str, &'a str, &'a str),
    Command(&'a str),
}

impl<'a> Program<'a> {
    fn of(source: &'a LogSource) -> Self {
        match source {
            LogSource::Kernel => Self::Kernel,
            LogSource::Unit(name) => Self::Unit(name),
            LogSource::Command(name) => Self::Command(name),
            LogSource::Container { namespace, pod, container, .. } => Self::Container(namespace, pod, container),
        }
    }
}

fn is_recent(evidence: &Evidence, span: i64, item: &Item, source: &LogSource) -> bool {
    let Some(time) = item.time else { return true };
    let reference = match is_running(evidence, &item.place, source) {
        Some(false) => last_words(evidence, &item.place, source).unwrap_or(evidence.gathered),
        _ => evidence.gathered,
    };
    reference.as_second() - time.as_second() <= span
}

/// When a program last wrote anything.
fn last_words(evidence: &Evidence, place: &Place, source: &LogSource) -> Option<Timestamp> {
    let own = |line: &LogFact| Program::of(&line.source) == Program::of(source);
    evidence
        .logs()
        .filter(|(_, item, line)| item.place == *place && own(line))
        .filter_map(|(_, item, _)| item.time)
        .max()
}

/// Whether what wrote a log runs now, where that was looked at.
pub(super) fn is_running(evidence: &Evidence, place: &Place, source: &LogSource) -> Option<bool> {
    match source {
        LogSource::Kernel => Some(true),
        LogSource::Command(_) => None,
        LogSource::Unit(name) => is_service_running(evidence, place, name),
        LogSource::Container { namespace, pod, container, .. } => {
            let mut pods = evidence.objects("Pod").filter(|(_, _, object)| {
                object["metadata"]["namespace"] == namespace.as_str() && object["metadata"]["name"] == pod.as_str()
            });
            let (_, _, pod) = pods.next()?;
            let status = container_statuses(pod).find(|status| text(&status["name"]) == container)?;
            Some(status["state"]["running"].is_object())
        }
    }
}

/// Whether a service of a machine runs, by its unit or by its process.
pub(super) fn is_service_running(evidence: &Evidence, place: &Place, name: &str) -> Option<bool> {
    let name = name.trim_end_matches(".service");
    let mut units = evidence.units().filter(|(_, item, unit)| item.place == *place && unit.name == name);
    if let Some((_, _, unit)) = units.next() {
        return Some(matches!(unit.active.as_str(), "active" | "reloading"));
    }
    let mut were_seen = false;
    for (_, _, process) in evidence.processes().filter(|(_, item, _)| item.place == *place) {
        were_seen = true;
        if is_process_of(&process.command, name) {
            return Some(true);
        }
    }
    were_seen.then_some(false)
}

/// Whether a command line is a program's; Kedge's parts are one program with a word after it.
fn is_process_of(command: &[String], name: &str) -> bool {
    let program = command.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    program == name || (program == "kedge" && command.get(1).is_some_and(|word| word == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::UnitFact;
    use crate::rules::fixtures::*;

    fn count(items: impl IntoIterator<Item = Item>) -> usize {
        let evidence = Evidence { gathered: now(), items: items.into_iter().collect(), unseen: Vec::new() };
        told(&evidence, |line| line.text.contains("bad"), |line| line.text.contains("good")).len()
    }

    fn unit(active: &str) -> Item {
        let (name, active, enabled) = ("kubelet".to_owned(), active.to_owned(), String::new());
        on("one", Fact::Unit(UnitFact { name, active, enabled }))
    }

    #[test]
    fn what_is_over_is_not_told() {
        assert_eq!(count([ago(logged("kubelet", "bad"), 60)]), 1);
        assert_eq!(count([logged("kubelet", "bad")]), 1);
        assert_eq!(count([ago(logged("kubelet", "bad"), 60), ago(logged("kubelet", "good"), 50)]), 0);
        assert_eq!(count([ago(logged("kubelet", "bad"), 60), ago(logged("containerd", "good"), 50)]), 1);
        assert_eq!(count([ago(logged("kubelet", "bad"), 3600)]), 0);
    }

    #[test]
    fn words_of_any_length_are_found_whole() {
        let long = "a word that is longer than what is looked for at once";
        let check = |text: &str, word: &str, wanted| assert_eq!(says(text, &[&[word]]), wanted, "{text}: {word}");
        check(&format!("It says {long}."), long, true);
        check(&format!("{}, then {long}", &long[..40]), long, true);
        check(&long[..40], long, false);
        check("short", "or", true);
        check("", "or", false);
        // A letter of two bytes where the start would end.
        let split = format!("{}\u{e4} and more", "x".repeat(31));
        check(&split, &split, true);
        check(&split[..31], &split, false);
        assert!(says("one two", &[&["three"], &["two", "one"]]) && !says("one", &[&["two", "one"]]));
    }

    #[test]
    fn who_does_not_run_is_held_to_its_last_words() {
        let old = || ago(logged("kubelet", "bad"), 7200);
        assert_eq!(count([old(), unit("active")]), 0);
        assert_eq!(count([old(), unit("failed")]), 1);
        assert_eq!(count([old(), ago(logged("kubelet", "other"), 60), unit("failed")]), 0);
    }

    #[test]
    fn the_first_line_is_the_onset() {
        let items = vec![ago(logged("a", "bad 1"), 90), ago(logged("a", "x"), 80), ago(logged("a", "bad 2"), 70)];
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        let told = told(&evidence, |line| line.text.contains("bad"), |_| false);
        assert_eq!((told.len(), told[0].evidence()), (1, vec![0, 2]));
    }
}
