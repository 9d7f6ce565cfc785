//! Whether the first cause is the true one over the fixtures of all rules, alone and two at once.
//!
//! Two fixtures of different entries are put together as one cluster would show them. Right is: both are named and
//! nothing else, or one is named as the cause of the other. What a pair means that is more than its halves stands in
//! tables, each line with the catalogue's reason.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::accuracy::{ACCURACY, Accuracy, Share};
use crate::corpus::{Fixture, contradict, elsewhere, fixtures};
use crate::diagnosis::diagnose;
use crate::rules::fixtures::*;

/// Entries that the catalogue itself calls an effect, with what it names as their cause.
const EFFECTS: &[(&str, &[&str])] = &[
    // What goes on running while the API server is away.
    ("A20", &["A15", "E1"]),
    // The store's disk is full because a disk is.
    ("B14", &["F1"]),
    // An API server that is not reached, by the reason that the line gives.
    ("E1", &["G22"]),
    // Pods' states are late, or tasks hang, because a share is gone.
    ("E5", &["I9"]),
    ("F6", &["I9"]),
    // Bridged packets pass no rules of Services because the filter is off.
    ("G19", &["D2"]),
    // Who should answer is on a machine that is silent.
    ("H7", &["E2"]),
];

/// Two entries that are a third one together, or of which one is how the other shows.
const MEETINGS: &[(&str, &str, &[&str])] = &[
    // A1 against A2 and A3: by the store's words on its disk, and by whether the server is reached.
    ("A1", "A2", &["A1"]),
    ("A2", "B1", &["A1"]),
    ("A1", "A3", &["A3", "B1"]),
    // Refused certificates and a clock that is wrong are C10.
    ("B9", "F11", &["C10"]),
    // Somebody complains of a certificate that is over; the one that is served is over, and its file is not.
    ("C1", "C2", &["C2"]),
    // No room is left where a small file system is full, or a bound is wrong.
    ("F1", "F2", &["F2"]),
    // A wrong bound takes pods away where F1 would; that the store's disk is full as well is its own matter.
    ("B14", "F2", &["B14", "F2"]),
    // A peer that is no machine's address is why nobody reaches it.
    ("G1", "G2", &["G2"]),
];

/// Two entries that cannot be at once.
const EXCLUSIVE: &[(&str, &[&str])] = &[
    // One process has not both ended and hung.
    ("A4", &["A1", "A3"]),
    // A store that was ended from outside with nothing wrong in its log.
    ("B13", &["A18", "B5", "B7", "B14"]),
    // A check of the past and what the setting is now.
    ("D1", &["F16"]),
    // A cluster that has no pod network yet has no agent of one.
    ("D15", &["G1", "G2", "G4", "G11"]),
    // Flags with an address, and all interfaces of a machine that has not that address.
    ("D17", &["G7", "G19"]),
];
/// Entries about all nodes: another one that is different makes them untrue.
const OF_ALL_NODES: &[&str] = &["D15", "D16", "H12"];

/// One of so many pairs is tried each time; all of them take a minute.
const SAMPLE: usize = 16;
/// Of a thousand pairs, so many are to be named right.
const GOAL: usize = 950;

/// A cause with the ids that it explains.
type Named = (String, BTreeSet<String>);

/// What is found, one entry for each id.
fn named(items: Vec<Item>) -> Vec<Named> {
    let diagnosis = diagnose(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
    let mut named: Vec<Named> = Vec::new();
    for cause in &diagnosis.causes {
        let explained = cause.explains.iter().filter_map(|line| line.split(' ').next()).map(str::to_owned);
        match named.iter_mut().find(|(id, _)| id == cause.id) {
            Some((_, known)) => known.extend(explained),
            None => named.push((cause.id.to_owned(), explained.collect())),
        }
    }
    named
}

/// A fixture's first cause, if it is the true one: its own entry, or what the catalogue says that explains it.
fn true_root(fixture: &Fixture, named: &[Named]) -> Option<String> {
    let (first, explained) = named.first()?;
    let is_cause = |(id, causes): &(&str, &[&str])| *id == fixture.id && causes.contains(&first.as_str());
    let is_true = *first == fixture.id || (EFFECTS.iter().any(is_cause) && explained.contains(&fixture.id));
    is_true.then(|| first.clone())
}

/// A fixture whose true cause is named first.
struct Known {
    fixture: Fixture,
    root: String,
}

/// The fixtures that are named right, and what went wrong with the others.
fn alone() -> (Vec<Known>, Vec<String>) {
    let (mut known, mut wrong) = (Vec::new(), Vec::new());
    for fixture in fixtures() {
        let named = named(fixture.items.clone());
        match true_root(&fixture, &named) {
            Some(root) if named.len() == 1 => known.push(Known { fixture, root }),
            _ => wrong.push(format!("{}: {named:?} in {:?}", fixture.id, fixture.items)),
        }
    }
    (known, wrong)
}

/// What may be named of two troubles; nothing where they cannot be two, and be at once.
fn expected(one: &Known, other: &Known) -> Option<Vec<BTreeSet<String>>> {
    let (first, second) = (one.fixture.id.as_str(), other.fixture.id.as_str());
    let is_pair = |a: &str, b: &str| (a, b) == (first, second) || (b, a) == (first, second);
    let is_untrue = EXCLUSIVE.iter().any(|(id, others)| others.iter().any(|other| is_pair(id, other)))
        || (OF_ALL_NODES.contains(&first) && has_node(&other.fixture))
        || (OF_ALL_NODES.contains(&second) && has_node(&one.fixture));
    if one.root == other.root || is_untrue {
        return None;
    }
    let meetings = MEETINGS.iter().filter(|(a, b, _)| is_pair(a, b));
    let meetings = meetings.map(|(_, _, both)| both.iter().map(|id| (*id).to_owned()).collect());
    Some(meetings.chain([BTreeSet::from([one.root.clone(), other.root.clone()])]).collect())
}

fn has_node(fixture: &Fixture) -> bool {
    fixture.items.iter().any(|item| matches!(&item.fact, Fact::Object(object) if object["kind"] == "Node"))
}

/// Both fixtures as one cluster shows them: on one machine, on two where one cannot show both, or not at all.
fn together(one: &Fixture, other: &Fixture) -> Option<Vec<Item>> {
    if !contradict(one, other) {
        return Some([one.items.clone(), other.items.clone()].concat());
    }
    let moved = elsewhere(other).filter(|moved| !contradict(one, moved))?;
    Some([one.items.clone(), moved.items].concat())
}

fn is_right(expected: &BTreeSet<String>, named: &[Named]) -> bool {
    let ids: BTreeSet<&String> = named.iter().map(|(id, _)| id).collect();
    let is_folded = |(id, explained): &Named| {
        named.len() == 1 && expected.iter().all(|wanted| wanted == id || explained.contains(wanted))
    };
    ids == expected.iter().collect() || named.first().is_some_and(is_folded)
}

/// Each entry with each other one `every` so many, with fixtures that take turns.
fn pairs(known: &[Known], every: usize) -> (Share, String) {
    let ids: Vec<&str> = BTreeSet::from_iter(known.iter().map(|known| known.fixture.id.as_str())).into_iter().collect();
    let of = |id: &str| known.iter().filter(|known| known.fixture.id == id).collect::<Vec<_>>();
    let groups: Vec<Vec<&Known>> = ids.iter().map(|id| of(id)).collect();
    let (mut share, mut wrong) = (Share { right: 0, all: 0 }, String::new());
    for (i, ones) in groups.iter().enumerate() {
        for (j, others) in groups.iter().enumerate().skip(i + 1).filter(|(j, _)| (i * 31 + j).is_multiple_of(every)) {
            let (one, other) = (ones[j % ones.len()], others[i % others.len()]);
            let Some(expected) = expected(one, other) else { continue };
            let Some(items) = together(&one.fixture, &other.fixture) else { continue };
            let named = named(items);
            share.all += 1;
            if expected.iter().any(|expected| is_right(expected, &named)) {
                share.right += 1;
            } else {
                let _ = writeln!(wrong, "{} and {}: {named:?}", one.fixture.id, other.fixture.id);
            }
        }
    }
    (share, wrong)
}

#[test]
fn the_first_cause_of_every_fixture_is_the_true_one() {
    let (known, wrong) = alone();
    let share = Share { right: known.len(), all: known.len() + wrong.len() };
    let ids: BTreeSet<&str> = known.iter().map(|known| known.fixture.id.as_str()).collect();
    let without: Vec<&str> = crate::rules::rules().map(|rule| rule.id).filter(|id| !ids.contains(id)).collect();
    assert!(without.is_empty(), "no fixture of {without:?}");
    assert!(share.permille() >= ACCURACY.fixtures.permille(), "{share}\n{}", wrong.join("\n"));
}

#[test]
fn what_stands_beside_a_trouble_changes_nothing() {
    let mut wrong = Vec::new();
    for Known { fixture, .. } in
        alone().0.into_iter().filter(|known| !OF_ALL_NODES.contains(&known.fixture.id.as_str()))
    {
        let (before, after) = (
            named(fixture.items.clone()),
            named([fixture.items.clone(), crate::rules::planned::bystanders()].concat()),
        );
        if before != after {
            wrong.push(format!("{}: {before:?} became {after:?}", fixture.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_two_troubles_both_are_named_and_nothing_else() {
    let (share, wrong) = pairs(&alone().0, SAMPLE);
    assert!(share.permille() >= GOAL, "{share}\n{wrong}");
    assert!(ACCURACY.combined.permille() >= GOAL, "the figures are older than the goal");
}

#[test]
#[ignore = "takes a minute: every pair, for the figures of accuracy.rs"]
fn every_pair_of_troubles() {
    let (known, wrong) = alone();
    let (share, wrong_pairs) = pairs(&known, 1);
    let measured = Accuracy { fixtures: Share { right: known.len(), all: known.len() + wrong.len() }, combined: share };
    assert_eq!(measured, ACCURACY, "write these figures into accuracy.rs\n{}\n{wrong_pairs}", wrong.join("\n"));
}
