//! The last two measurements of every node and container, and what lies between them.
//!
//! Pure. Invariants: a total that fell or a container that was started anew begins anew; what a node does not name any more
//! is forgotten; what was measured once has no usage, unless its start is known and recent.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::exposition::{Measured, NodeReport, PodKey};
use crate::usage::Usage;

/// A container that is younger may be judged from its start, if it is at least so old.
const FRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// A complete measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    time: Timestamp,
    start: Option<Timestamp>,
    cpu: u64,
    memory: u64,
}

/// The last measurement and one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    before: Option<Point>,
    last: Point,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Points {
    nodes: BTreeMap<String, NodePoints>,
}

#[derive(Debug, Default)]
struct NodePoints {
    node: Option<Pair>,
    pods: BTreeMap<PodKey, BTreeMap<String, Pair>>,
}

impl Points {
    /// Takes in what a node said.
    pub(crate) fn take(&mut self, node: &str, report: &NodeReport) {
        let known = self.nodes.entry(node.to_owned()).or_default();
        if let Some(point) = complete(report.node) {
            known.node = Some(follow(known.node, point));
        }
        let mut pods = BTreeMap::new();
        for (key, containers) in &report.pods {
            let before = known.pods.get(key);
            let pairs: BTreeMap<String, Pair> = containers
                .iter()
                .filter_map(|(name, measured)| {
                    let pair = before.and_then(|before| before.get(name)).copied();
                    Some((name.clone(), follow(pair, complete(*measured)?)))
                })
                .collect();
            // A container without figures makes the pod's sum wrong, so that the pod has none.
            if pairs.len() == containers.len() {
                pods.insert(key.clone(), pairs);
            }
        }
        known.pods = pods;
    }

    /// Forgets the nodes that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|node, _| keep(node));
    }

    /// What a node uses.
    pub(crate) fn node(&self, name: &str) -> Option<Usage> {
        self.nodes.get(name)?.node.and_then(usage)
    }

    /// What the containers of a pod use, by name; nothing where one of them is not known.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(String, Usage)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let containers = self.nodes.values().find_map(|node| node.pods.get(&key))?;
        containers.iter().map(|(name, pair)| Some((name.clone(), usage(*pair)?))).collect()
    }
}

fn complete(measured: Measured) -> Option<Point> {
    let Measured { time, start, cpu, memory } = measured;
    // A container that is being made has no memory yet.
    Some(Point { time: time?, start, cpu: cpu?, memory: memory.filter(|bytes| *bytes > 0)? })
}

fn follow(known: Option<Pair>, point: Point) -> Pair {
    let Some(Pair { before, last }) = known else { return Pair { before: from_start(point), last: point } };
    if point.time <= last.time {
        // The node's figures are the same as before.
        return Pair { before, last };
    }
    let same = point.cpu >= last.cpu && point.start == last.start;
    Pair { before: if same { Some(last) } else { from_start(point) }, last: point }
}

/// Nothing was used at the start.
fn from_start(point: Point) -> Option<Point> {
    let start = point.start?;
    let age = Duration::try_from(point.time.duration_since(start)).ok()?;
    (age >= FRESH.0 && age < FRESH.1).then_some(Point { time: start, start: Some(start), cpu: 0, memory: 0 })
}

fn usage(pair: Pair) -> Option<Usage> {
    let Pair { before: Some(before), last } = pair else { return None };
    let window = Duration::try_from(last.time.duration_since(before.time)).ok().filter(|window| !window.is_zero())?;
    let nanos = u128::from(last.cpu.checked_sub(before.cpu)?) * 1_000_000_000 / window.as_nanos();
    let cpu = u64::try_from(nanos).unwrap_or(u64::MAX);
    Some(Usage { time: last.time, window, cpu, memory: last.memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(time: i64, start: i64, cpu: u64) -> NodeReport {
        let measured = Measured { time: Some(at(time)), start: Some(at(start)), cpu: Some(cpu), memory: Some(7) };
        let containers = BTreeMap::from([("c".to_owned(), measured)]);
        NodeReport {
            node: Measured { start: None, ..measured },
            pods: BTreeMap::from([(("n".to_owned(), "p".to_owned()), containers)]),
        }
    }

    #[test]
    fn usage_lies_between_two_measurements() {
        let mut points = Points::default();
        points.take("node", &report(100, 0, 1_000_000_000));
        assert_eq!((points.node("node"), points.pod("n", "p")), (None, None));
        points.take("node", &report(100, 0, 1_000_000_000));
        assert_eq!(points.node("node"), None, "the same measurement again says nothing");
        points.take("node", &report(110, 0, 6_000_000_000));
        let expected = Usage { time: at(110), window: Duration::from_secs(10), cpu: 500_000_000, memory: 7 };
        assert_eq!(points.node("node"), Some(expected));
        assert_eq!(points.pod("n", "p"), Some(vec![("c".to_owned(), expected)]));
        points.take("node", &NodeReport::default());
        assert_eq!(points.pod("n", "p"), None, "the pod is gone");
        points.retain(|_| false);
        assert_eq!(points.node("node"), None);
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut points = Points::default();
        points.take("node", &report(100, 0, 1_000_000_000));
        points.take("node", &report(110, 105, 1_000_000_000));
        assert_eq!(points.pod("n", "p"), None, "it is too young to be judged");
        points.take("node", &report(125, 105, 3_000_000_000));
        let usage = points.pod("n", "p").unwrap()[0].1;
        assert_eq!((usage.cpu, usage.window), (133_333_333, Duration::from_secs(15)));
    }

    #[test]
    fn a_young_container_is_judged_from_its_start() {
        for (age, expected) in [(5, None), (10, Some(100_000_000)), (59, Some(16_949_152)), (60, None)] {
            let mut points = Points::default();
            points.take("node", &report(1000, 1000 - age, 1_000_000_000));
            assert_eq!(points.pod("n", "p").map(|usage| usage[0].1.cpu), expected, "{age}");
        }
    }
}
