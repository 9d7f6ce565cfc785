//! A cause as the object that is kept of it. Pure.
//!
//! Invariant: the same trouble of the same object has the same name in every look and from every instance; an object is of
//! bounded size.

use jiff::Timestamp;
use kedge_diagnosis::{Cause, Place};
use serde_json::{Value, json};

/// Effects, and exhibits, that are kept of one cause.
const MOST_LINES: usize = 10;
/// Letters of one text.
const MOST_LETTERS: usize = 500;

/// The name of a cause's object.
pub(crate) fn name(cause: &Cause) -> String {
    let whose = format!("{:?} {}", cause.place, cause.subject);
    format!("{}-{:010x}", cause.id.to_lowercase(), hash(&whose) & 0xff_ffff_ffff)
}

/// FNV-1a: short, and the same in every build.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What is kept of a cause that was first seen at a time.
pub(crate) fn report(cause: &Cause, first_seen: Timestamp) -> Value {
    let lines = |lines: &[String]| lines.iter().take(MOST_LINES).map(|line| cut(line)).collect::<Vec<_>>();
    let exhibits = cause.evidence.iter().take(MOST_LINES).map(|exhibit| {
        let mut kept = json!({"origin": cut(&exhibit.origin), "shown": cut(&exhibit.shown)});
        if let Some(time) = exhibit.time {
            kept["time"] = json!(whole_seconds(time));
        }
        kept
    });
    let steps = cause.repair.steps.iter().take(MOST_LINES).map(|step| {
        let mut kept = json!({"text": cut(&step.text)});
        if let Some(command) = &step.command {
            kept["command"] = json!(cut(command));
        }
        kept
    });
    let mut report = json!({
        "id": cause.id, "title": cause.title, "severity": cause.severity, "confidence": cause.confidence,
        "affects": affects(cause), "subject": cause.subject, "text": cut(&cause.text),
        "since": whole_seconds(cause.since.map_or(first_seen, |since| since.min(first_seen))),
        "effects": cause.explains.len(), "explains": lines(&cause.explains),
        "evidence": exhibits.collect::<Vec<_>>(),
        "repair": {"dangerous": cause.repair.dangerous, "steps": steps.collect::<Vec<_>>()},
    });
    if let Place::Node(node) = &cause.place {
        report["node"] = json!(node);
    }
    report
}

/// Who has the trouble, and how much follows from it.
fn affects(cause: &Cause) -> String {
    match cause.explains.len() {
        0 => cause.subject.to_string(),
        more => format!("{} (+{more})", cause.subject),
    }
}

/// Times of the API have no fractions.
fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a report says something else than another: quoted lines and their times change with every look, and alone are no
/// news.
pub(crate) fn is_news(kept: &Value, new: &Value) -> bool {
    let same = |field: &str| kept[field] == new[field];
    !["id", "title", "severity", "confidence", "affects", "subject", "node", "text", "repair"].into_iter().all(same)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kedge_diagnosis::{Certainty, Exhibit, Repair, Severity, Subject};

    pub(crate) fn cause(id: &'static str, name: &str) -> Cause {
        Cause {
            id,
            title: "a title",
            subject: Subject::new("Node", name),
            place: Place::Node(name.to_owned()),
            confidence: Certainty::Proven,
            severity: Severity::Failure,
            since: None,
            text: "it is so".to_owned(),
            explains: vec!["W1 x".to_owned()],
            evidence: vec![Exhibit { time: None, origin: "o".to_owned(), shown: "s".repeat(2000) }],
            repair: Repair::of(&[("mend it", "true")]),
        }
    }

    #[test]
    fn a_name_is_of_the_trouble_and_of_who_has_it() {
        let names = [("E2", "one"), ("E2", "two"), ("E3", "one")].map(|(id, node)| name(&cause(id, node)));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!(names[0], name(&cause("E2", "one")));
        assert!(names[0].starts_with("e2-") && names[0].len() == 13, "{names:?}");
    }

    #[test]
    fn reports_are_bounded_and_only_news_are_news() {
        let second = |second| Timestamp::from_second(second).expect("a time");
        let kept = report(&cause("E2", "one"), second(100));
        assert_eq!(
            (kept["affects"].as_str(), kept["since"].as_str()),
            (Some("Node one (+1)"), Some("1970-01-01T00:01:40Z"))
        );
        assert_eq!(kept["evidence"][0]["shown"].as_str().map(|shown| shown.chars().count()), Some(MOST_LETTERS + 1));
        let mut later = cause("E2", "one");
        later.evidence[0].shown = "other".to_owned();
        assert!(!is_news(&kept, &report(&later, second(100))));
        later.text = "it is otherwise".to_owned();
        assert!(is_news(&kept, &report(&later, second(100))));
    }
}
