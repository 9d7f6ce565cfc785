//! What logs say when something is wrong, and whether it still holds.
//!
//! Every rule that reads logs asks here. Invariant: a line tells of trouble only if it is recent, or the last word of a
//! program that does not run now; and never if a later line of the same log says that it is over.

use std::collections::BTreeMap;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::LogSource;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{container_statuses, text};
use crate::rules::lines::says;

/// How many seconds a line of a program that runs on speaks for: the longest pause between two starts of a container that
/// crashes, and as much again.
const RECENT: i64 = 600;
/// Lines of one log that are quoted: the first, and the last ones.
const MOST_LINES: usize = 4;
/// A program that is all of Kedge: what any component would say may stand in its log.
const WHOLE: &str = "kedge";

/// What a log says of a trouble.
pub(super) struct Sign {
    /// Who says it: units, containers or commands. Kedge's one process always may; anybody where this is empty.
    pub(super) programs: &'static [&'static str],
    /// The wordings: a line is one of them if it has all its words.
    pub(super) words: &'static [&'static [&'static str]],
    /// A later line with one of these says that it is over.
    pub(super) over: &'static [&'static str],
}

/// The trouble, as one log tells it.
pub(super) struct Told<'a> {
    /// The item of its last line.
    pub(super) item: &'a Item,
    /// Whose log it is.
    pub(super) source: &'a LogSource,
    /// The last line.
    pub(super) text: &'a str,
    /// The items that prove it: the first line and the last ones, in their order.
    pub(super) lines: Vec<usize>,
    /// How many lines say it.
    pub(super) count: usize,
}

impl Sign {
    /// Whether a line says it.
    pub(super) fn is_said_by(&self, line: &str) -> bool {
        says(line, self.words)
    }

    /// Where it holds now: one entry for each log, the runs of a container taken together.
    pub(super) fn told<'a>(&self, evidence: &'a Evidence) -> Vec<Told<'a>> {
        self.told_where(evidence, |_| true)
    }

    /// The same, of lines that a function agrees to as well.
    pub(super) fn told_where<'a>(&self, evidence: &'a Evidence, holds: impl Fn(&str) -> bool) -> Vec<Told<'a>> {
        let mut logs: BTreeMap<(&Place, LogSource), Vec<usize>> = BTreeMap::new();
        let mut ends: BTreeMap<(&Place, LogSource), Moment> = BTreeMap::new();
        let lines = evidence.logs().filter(|(_, _, line)| self.is_of(&line.source));
        for (index, item, line) in lines {
            // Made only where it is needed: most lines say nothing.
            let key = || (&item.place, line.source.whole());
            if self.is_said_by(&line.text) && holds(&line.text) {
                logs.entry(key()).or_default().push(index);
            } else if self.over.iter().any(|word| says(&line.text, &[&[word]])) {
                let end = ends.entry(key()).or_insert(Moment::of(evidence, index));
                *end = Moment::of(evidence, index).max(*end);
            }
        }
        let told = logs.into_iter().filter_map(|(key, mut lines)| {
            lines.sort_by_key(|index| Moment::of(evidence, *index));
            let last = Moment::of(evidence, *lines.last()?);
            let is_over = ends.get(&key).is_some_and(|end| *end > last);
            (!is_over).then(|| told(evidence, &lines)).flatten()
        });
        told.filter(|told| is_standing(evidence, told)).collect()
    }

    /// A finding for each log that tells of it; `tell` gives the sentence.
    pub(super) fn found(
        &self,
        evidence: &Evidence,
        certainty: Certainty,
        repair: impl Fn(&Told<'_>) -> Repair,
        tell: impl Fn(&Told<'_>) -> String,
    ) -> Vec<Finding> {
        let finding = |told: Told<'_>| {
            let (sentence, repair) = (tell(&told), repair(&told));
            Finding::failure(told.source.subject(), told.item, certainty, sentence, told.lines, repair)
        };
        self.told(evidence).into_iter().map(finding).collect()
    }

    fn is_of(&self, source: &LogSource) -> bool {
        self.programs.is_empty() || source.is(WHOLE) || self.programs.iter().any(|program| source.is(program))
    }
}

impl LogSource {
    /// The log that all runs of a container make together.
    fn whole(&self) -> Self {
        let mut whole = self.clone();
        if let Self::Container { previous, .. } = &mut whole {
            *previous = false;
        }
        whole
    }

    /// Who writes it.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Kernel => Subject::new("Component", "kernel"),
            Self::Unit(name) => Subject::new("Component", name.trim_end_matches(".service")),
            Self::Command(name) => Subject::new("Command", name),
            Self::Container { namespace, pod, .. } => {
                Subject { kind: "Pod".to_owned(), namespace: namespace.clone(), name: pod.clone() }
            }
        }
    }

    /// Its program, as a sentence names it.
    pub(super) fn program(&self) -> &str {
        match self {
            Self::Kernel => "the kernel",
            Self::Unit(name) | Self::Command(name) => name.trim_end_matches(".service"),
            Self::Container { container, .. } => container,
        }
    }
}

/// Where a line stands in its log: by its time, else by its run and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Option<jiff::Timestamp>, bool, usize);

impl Moment {
    fn of(evidence: &Evidence, index: usize) -> Self {
        let item = &evidence.items[index];
        let previous = matches!(
            &item.fact,
            crate::facts::Fact::Log(line) if matches!(line.source, LogSource::Container { previous: true, .. })
        );
        Self(item.time, !previous, index)
    }
}

fn told<'a>(evidence: &'a Evidence, lines: &[usize]) -> Option<Told<'a>> {
    let item = &evidence.items[*lines.last()?];
    let crate::facts::Fact::Log(last) = &item.fact else { return None };
    let tail = lines.len().saturating_sub(MOST_LINES - 1).max(1).min(lines.len());
    let quoted = lines[..1].iter().chain(&lines[tail..]).copied().collect();
    Some(Told { item, source: &last.source, text: &last.text, lines: quoted, count: lines.len() })
}

/// Whether what was said still holds: it was said just now or nobody knows when, or its writer has been down since.
fn is_standing(evidence: &Evidence, told: &Told<'_>) -> bool {
    told.item.time.is_none_or(|time| evidence.gathered.as_second() - time.as_second() <= RECENT)
        || is_down(evidence, &told.item.place, told.source)
}

/// The last line of each log of some programs.
pub(super) fn last_lines<'a>(
    evidence: &'a Evidence,
    programs: &[&str],
) -> Vec<(usize, &'a Item, &'a LogSource, &'a str)> {
    let mut last: BTreeMap<(&Place, LogSource), (usize, &Item, &LogSource, &str)> = BTreeMap::new();
    for (index, item, line) in evidence.logs().filter(|(_, _, line)| programs.iter().any(|name| line.source.is(name))) {
        let known = last.entry((&item.place, line.source.whole())).or_insert((index, item, &line.source, &line.text));
        if Moment::of(evidence, index) >= Moment::of(evidence, known.0) {
            *known = (index, item, &line.source, &line.text);
        }
    }
    last.into_values().collect()
}

/// Whether the writer of a log is known not to run.
pub(super) fn is_down(evidence: &Evidence, place: &Place, source: &LogSource) -> bool {
    match source {
        LogSource::Kernel | LogSource::Command(_) => false,
        LogSource::Unit(unit) => {
            let mut units = evidence.units().filter(|(_, item, known)| item.place == *place && source.is(&known.name));
            units.any(|(_, _, known)| known.active != "active" && source.is(unit.trim_end_matches(".service")))
        }
        LogSource::Container { namespace, pod, container, .. } => {
            let mut pods = evidence.objects("Pod").filter(|(_, _, object)| {
                text(&object["metadata"]["namespace"]) == namespace && text(&object["metadata"]["name"]) == pod
            });
            pods.any(|(_, _, object)| {
                let mut statuses = container_statuses(object).filter(|status| text(&status["name"]) == container);
                statuses.any(|status| !status["state"]["running"].is_object())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sign;
    use crate::rules::fixtures::*;

    const SIGN: Sign =
        Sign { programs: &["etcd"], words: &[&["slow", "disk"], &["old wording"]], over: &["quick again"] };

    fn told(items: Vec<Item>) -> Vec<(String, usize, Vec<usize>)> {
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        SIGN.told(&evidence).into_iter().map(|told| (told.text.to_owned(), told.count, told.lines)).collect()
    }

    fn exited(state: Value) -> Item {
        let status = json!({"containerStatuses": [{"name": "etcd", "state": state}]});
        on("one", Fact::Object(pod("kube-system", "etcd-one", json!({}), status)))
    }

    #[test]
    fn wordings_of_the_right_program_are_told_once_for_each_log() {
        let line = |text: &str| container_logged("etcd", text);
        let items = vec![line("slow, the disk"), line("an old wording"), line("slow"), logged("kubelet", "slow disk")];
        assert_eq!(told(items), [("an old wording".to_owned(), 2, vec![0, 1])]);
        assert_eq!(told(vec![logged("kedge", "slow disk"), logged("etcd.service", "slow disk")]).len(), 2);
        let many = (0..9).map(|_| line("slow disk")).collect();
        assert_eq!(told(many), [("slow disk".to_owned(), 9, vec![0, 6, 7, 8])]);
    }

    #[test]
    fn what_is_over_or_long_ago_is_not_told_unless_its_writer_is_down() {
        let line = |text: &str, seconds: i64| ago(container_logged("etcd", text), seconds);
        assert_eq!(told(vec![line("slow disk", 20), line("quick again", 10)]), []);
        assert_eq!(told(vec![line("slow disk", 20), line("quick again", 30)]).len(), 1);
        assert_eq!(told(vec![line("slow disk", 3600)]), []);
        assert_eq!(told(vec![line("slow disk", 3600), exited(json!({"running": {}}))]), []);
        assert_eq!(told(vec![line("slow disk", 3600), exited(json!({"terminated": {"exitCode": 1}}))]).len(), 1);
    }
}
