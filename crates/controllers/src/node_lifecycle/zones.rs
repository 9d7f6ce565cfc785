//! How fast pods may be driven off nodes of a zone, depending on how many of its nodes are not well.
//!
//! Pure but for the buckets' state, which takes the time as an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_metrics::Text;

use super::health::{Eviction, Readiness, readiness};
use crate::config::Config;
use crate::metrics::write_gauges;

/// The zone of a node: region and zone labels.
pub(crate) fn zone_key(node: &Node) -> String {
    let label =
        |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// How a zone fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZoneState {
    Normal,
    PartialDisruption,
    FullDisruption,
}

/// The state of each zone and its number of nodes.
pub(crate) fn zone_states<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    threshold: f64,
) -> BTreeMap<String, (ZoneState, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for node in nodes {
        let (ready, unready) = counts.entry(zone_key(node)).or_default();
        if readiness(node) == Readiness::True { *ready += 1 } else { *unready += 1 }
    }
    let state = |ready: usize, unready: usize| match (ready, unready) {
        (0, 1..) => ZoneState::FullDisruption,
        (_, 3..) if unready as f64 / (ready + unready) as f64 >= threshold => ZoneState::PartialDisruption,
        _ => ZoneState::Normal,
    };
    counts.into_iter().map(|(zone, (ready, unready))| (zone, (state(ready, unready), ready + unready))).collect()
}

/// A figure of a zone: its name, what it means, and its value by how many nodes there are and how many are not ready.
type Figure = (&'static str, &'static str, fn(f64, f64) -> f64);

/// How zones fare, as figures.
pub(crate) fn write(text: &mut Text, nodes: &[Arc<Node>]) {
    let mut counts: BTreeMap<[String; 1], (f64, f64)> = BTreeMap::new();
    for node in nodes {
        let (all, unready) = counts.entry([zone_key(node)]).or_default();
        *all += 1.0;
        *unready += f64::from(u8::from(readiness(node) != Readiness::True));
    }
    let figure = |of: fn(f64, f64) -> f64| -> BTreeMap<[String; 1], f64> {
        counts.iter().map(|(zone, (all, unready))| (zone.clone(), of(*all, *unready))).collect()
    };
    let families: [Figure; 3] = [
        ("node_collector_zone_size", "Gauge measuring number of registered Nodes per zones.", |all, _| all),
        ("node_collector_zone_health", "Gauge measuring percentage of healthy nodes per zone.", |all, unready| {
            100.0 * (all - unready) / all
        }),
        (
            "node_collector_unhealthy_nodes_in_zone",
            "Gauge measuring number of not Ready Nodes per zones.",
            |_, unready| unready,
        ),
    ];
    for (name, help, of) in families {
        write_gauges(text, name, help, ["zone"], &figure(of));
    }
}

/// Evictions per second in a zone; `None` where evictions are suspended everywhere.
pub(crate) fn eviction_rate(states: &BTreeMap<String, (ZoneState, usize)>, zone: &str, config: &Config) -> Option<f64> {
    if states.values().all(|(state, _)| *state == ZoneState::FullDisruption) {
        return None;
    }
    Some(match states.get(zone) {
        Some((ZoneState::PartialDisruption, nodes)) if *nodes > config.large_cluster_size_threshold => {
            config.secondary_node_eviction_rate
        }
        Some((ZoneState::PartialDisruption, _)) => 0.0,
        _ => config.node_eviction_rate,
    })
}

/// A token for each zone, which comes back at the zone's rate.
#[derive(Debug, Default)]
pub(crate) struct Buckets(HashMap<String, (f64, Timestamp)>);

impl Buckets {
    /// Takes a zone's token; else says when to ask again, if ever.
    pub(crate) fn take(&mut self, zone: &str, rate: Option<f64>, now: Timestamp) -> (Eviction, Option<Duration>) {
        let Some(rate) = rate else { return (Eviction::Suspended, None) };
        if rate <= 0.0 {
            return (Eviction::Held, None);
        }
        let (tokens, since) = self.0.entry(zone.to_owned()).or_insert((1.0, now));
        *tokens = (*tokens + now.duration_since(*since).as_secs_f64().max(0.0) * rate).min(1.0);
        *since = now;
        // A hair less than one: the wait below is rounded.
        if *tokens >= 0.999 {
            *tokens -= 1.0;
            return (Eviction::Allowed, None);
        }
        (Eviction::Held, Some(Duration::from_secs_f64((1.0 - *tokens) / rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::fixtures::node;
    use super::*;

    #[test]
    fn zones_are_shown_with_their_health() {
        let mut well = node("a", Some("True"));
        well.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), "a".to_owned())].into());
        let mut unwell = node("b", Some("Unknown"));
        unwell.metadata.labels = well.metadata.labels.clone();
        let text = crate::metrics::shown(|text| write(text, &[Arc::new(well.clone()), Arc::new(unwell.clone())]));
        for line in [
            "node_collector_zone_size{zone=\":a\"} 2",
            "node_collector_zone_health{zone=\":a\"} 50",
            "node_collector_unhealthy_nodes_in_zone{zone=\":a\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn evictions_slow_down_and_stop() {
        let config = Config::default();
        let check = |ready: usize, unready: usize, other_zone: bool, expected: Option<f64>| {
            let mut nodes: Vec<Node> = (0..ready).map(|_| node("a", Some("True"))).collect();
            nodes.extend((0..unready).map(|_| node("b", Some("Unknown"))));
            if other_zone {
                let mut far = node("c", Some("True"));
                far.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), "far".to_owned())].into());
                nodes.push(far);
            }
            let states = zone_states(&nodes, config.unhealthy_zone_threshold);
            assert_eq!(eviction_rate(&states, ":", &config), expected, "{ready} ready, {unready} not");
        };
        check(3, 1, false, Some(0.1));
        check(0, 1, false, None);
        check(0, 1, true, Some(0.1));
        check(1, 2, false, Some(0.1));
        check(2, 3, false, Some(0.0));
        check(20, 40, false, Some(0.01));
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let mut buckets = Buckets::default();
        let mut take =
            |second: i64, rate: Option<f64>| buckets.take(":", rate, Timestamp::from_second(second).unwrap());
        assert_eq!(take(0, Some(0.1)), (Eviction::Allowed, None));
        assert_eq!(take(0, Some(0.1)), (Eviction::Held, Some(Duration::from_secs(10))));
        assert_eq!(take(10, Some(0.1)), (Eviction::Allowed, None));
        assert_eq!(take(99, Some(0.0)), (Eviction::Held, None));
        assert_eq!(take(99, None), (Eviction::Suspended, None));
    }
}
