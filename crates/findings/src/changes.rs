//! What has to change so that the objects say what the last look said. Pure.
//!
//! Invariant: a finding goes only after two looks in a row that saw as much as those before and did not find it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kedge_diagnosis::{Cause, Diagnosis, Subject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{is_news, name, report};

/// Objects that are kept; what matters less is counted in the metrics only.
const MOST_KEPT: usize = 100;
/// Findings that are remembered after they are gone.
const MOST_REMEMBERED: usize = 50;
/// Looks in a row that must not find it.
const LOOKS_UNTIL_GONE: u32 = 2;

/// A finding that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) affects: String,
    pub(crate) since: String,
    pub(crate) until: String,
}

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    /// Names with their reports.
    pub(crate) create: Vec<(String, Value)>,
    /// The same.
    pub(crate) update: Vec<(String, Value)>,
    /// Names.
    pub(crate) delete: Vec<String>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// How often in a row a kept finding was not found.
    missing: BTreeMap<String, u32>,
    /// What the last look could not see.
    unseen: BTreeSet<String>,
}

impl Memory {
    /// What a look changes. `kept` are the reports of the objects by their name.
    pub(crate) fn plan_changes(
        &mut self,
        diagnosis: &Diagnosis,
        kept: &BTreeMap<String, Value>,
        now: Timestamp,
    ) -> Changes {
        let unseen: BTreeSet<String> = diagnosis.not_seen.iter().map(|unseen| unseen.what.clone()).collect();
        // What a look is blind to may still be wrong.
        let sees_as_much = unseen.is_subset(&self.unseen);
        self.unseen = unseen;
        let found: BTreeMap<String, &Cause> =
            diagnosis.causes.iter().take(MOST_KEPT).map(|cause| (name(cause), cause)).collect();
        let mut changes = Changes::default();
        for (name, cause) in &found {
            match kept.get(name) {
                None => changes.create.push((name.clone(), report(cause, now))),
                Some(old) => {
                    let first_seen = old["since"].as_str().and_then(|since| since.parse().ok()).unwrap_or(now);
                    let new = report(cause, first_seen);
                    changes.update.extend(is_news(old, &new).then(|| (name.clone(), new)));
                }
            }
        }
        self.missing.retain(|name, _| kept.contains_key(name) && !found.contains_key(name));
        if sees_as_much {
            for name in kept.keys().filter(|name| !found.contains_key(*name)) {
                let missing = self.missing.entry(name.clone()).or_default();
                *missing += 1;
                changes.delete.extend((*missing >= LOOKS_UNTIL_GONE).then(|| name.clone()));
            }
        }
        changes
    }
}

/// A kept report as history.
pub(crate) fn past(report: &Value, now: Timestamp) -> Past {
    let text = |field: &str| report[field].as_str().unwrap_or_default().to_owned();
    Past {
        id: text("id"),
        title: text("title"),
        affects: text("affects"),
        since: text("since"),
        until: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

/// The history with what went now, the newest first.
pub(crate) fn remembered(mut gone: Vec<Past>, history: Vec<Past>) -> Vec<Past> {
    gone.extend(history);
    gone.truncate(MOST_REMEMBERED);
    gone
}

/// Who a kept report is about, and on which machine.
pub(crate) fn whose(report: &Value) -> (Subject, Option<String>) {
    let subject = serde_json::from_value(report["subject"].clone()).unwrap_or_default();
    (subject, report["node"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::cause;
    use kedge_diagnosis::{Evidence, Unseen, diagnose};

    fn look(causes: Vec<Cause>, unseen: &[&str]) -> Diagnosis {
        let mut diagnosis = diagnose(&Evidence::default());
        diagnosis.causes = causes;
        let of = |what: &&str| Unseen { what: (*what).to_owned(), why: "forbidden".to_owned() };
        diagnosis.not_seen = unseen.iter().map(of).collect();
        diagnosis
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn findings_come_stay_change_and_go() {
        let (mut memory, mut kept) = (Memory::default(), BTreeMap::new());
        let first = memory.plan_changes(&look(vec![cause("E2", "one")], &[]), &kept, second(100));
        assert_eq!((first.create.len(), first.update.len(), first.delete.len()), (1, 0, 0));
        kept.extend(first.create);
        let again = memory.plan_changes(&look(vec![cause("E2", "one")], &[]), &kept, second(200));
        assert_eq!(again, Changes::default());
        let mut worse = cause("E2", "one");
        worse.explains.push("W1 y".to_owned());
        let changed = memory.plan_changes(&look(vec![worse], &[]), &kept, second(300));
        assert_eq!(changed.update[0].1["since"], "1970-01-01T00:01:40Z", "it began when it began");
        let once = memory.plan_changes(&look(vec![], &[]), &kept, second(400));
        assert_eq!(once, Changes::default(), "once is not enough");
        let twice = memory.plan_changes(&look(vec![], &[]), &kept, second(500));
        assert_eq!(twice.delete, kept.keys().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn a_look_that_sees_less_proves_nothing() {
        let mut memory = Memory::default();
        let first = memory.plan_changes(&look(vec![cause("E2", "one")], &["events"]), &BTreeMap::new(), second(1));
        let kept: BTreeMap<String, Value> = first.create.into_iter().collect();
        let blind = |memory: &mut Memory, unseen: &[&str]| {
            memory.plan_changes(&look(vec![], unseen), &kept, second(2)).delete.len()
        };
        assert_eq!(blind(&mut memory, &["events", "nodes"]), 0);
        assert_eq!(blind(&mut memory, &["events", "nodes"]), 0, "it was not found once");
        assert_eq!(blind(&mut memory, &["events"]), 1);
    }

    #[test]
    fn what_is_kept_and_remembered_is_bounded() {
        let causes = (0..500).map(|count| cause("W1", &format!("n{count}"))).collect();
        let changes = Memory::default().plan_changes(&look(causes, &[]), &BTreeMap::new(), second(1));
        assert_eq!(changes.create.len(), MOST_KEPT);
        let gone = past(&changes.create[0].1, second(60));
        assert_eq!((gone.id.as_str(), gone.until.as_str()), ("W1", "1970-01-01T00:01:00Z"));
        let history = remembered(vec![gone.clone()], vec![gone; MOST_REMEMBERED]);
        assert_eq!(history.len(), MOST_REMEMBERED);
    }
}
