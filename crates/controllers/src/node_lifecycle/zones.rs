//! How fast pods may be driven off nodes of a zone, depending on how many of its nodes are not well.
//!
//! Pure but for the buckets' state, which takes the time as an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_metrics::Text;

use super::health::{Eviction, Readiness, readiness};
use crate::config::Config;
use crate::metrics::write_gauges;
use crate::pods::name_of;

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

/// How many nodes of each zone are ready and how many are not, kept change by change: a zone of thousands that falls silent
/// asks for its state as often.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// The zone of each node, and whether it is ready.
    nodes: HashMap<String, (String, bool)>,
    /// Ready and other nodes of each zone.
    zones: BTreeMap<String, (usize, usize)>,
    was_any_ready: bool,
}

impl Census {
    /// Counts a node as it is now.
    pub(crate) fn set(&mut self, node: &Node) {
        let name = name_of(&node.metadata);
        self.remove(name);
        let (zone, is_ready) = (zone_key(node), readiness(node) == Readiness::True);
        let (ready, unready) = self.zones.entry(zone.clone()).or_default();
        *(if is_ready { ready } else { unready }) += 1;
        self.nodes.insert(name.to_owned(), (zone, is_ready));
        self.was_any_ready |= is_ready;
    }

    /// Whether any node has ever been ready: a cluster that has just begun is not one that is lost.
    pub(crate) fn was_any_ready(&self) -> bool {
        self.was_any_ready
    }

    /// No longer counts a node.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some((zone, was_ready)) = self.nodes.remove(name) else { return };
        let Some(counts) = self.zones.get_mut(&zone) else { return };
        *(if was_ready { &mut counts.0 } else { &mut counts.1 }) -= 1;
        if *counts == (0, 0) {
            self.zones.remove(&zone);
        }
    }

    /// The nodes that are not ready.
    pub(crate) fn unwell(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|(_, (_, is_ready))| !is_ready).map(|(name, _)| name.as_str())
    }

    /// The state of each zone and its number of nodes.
    pub(crate) fn states(&self, threshold: f64) -> BTreeMap<String, (ZoneState, usize)> {
        let state = |ready: usize, unready: usize| match (ready, unready) {
            (0, 1..) => ZoneState::FullDisruption,
            (_, 3..) if unready as f64 / (ready + unready) as f64 >= threshold => ZoneState::PartialDisruption,
            _ => ZoneState::Normal,
        };
        let zones = self.zones.iter();
        zones.map(|(zone, &(ready, unready))| (zone.clone(), (state(ready, unready), ready + unready))).collect()
    }

    /// How fast pods may be driven off the nodes of each zone, as [`eviction_rate`] says.
    pub(crate) fn rates(&self, config: &Config) -> BTreeMap<String, Option<f64>> {
        let states = self.states(config.unhealthy_zone_threshold);
        states.keys().map(|zone| (zone.clone(), eviction_rate(&states, zone, config))).collect()
    }
}

/// A figure of a zone: its name, what it means, and its value by how many nodes there are and how many are not ready.
type Figure = (&'static str, &'static str, fn(f64, f64) -> f64);

/// How zones fare, as figures.
pub(crate) fn write(text: &mut Text, census: &Census) {
    let zones = census.zones.iter();
    let counts: Vec<([String; 1], (f64, f64))> =
        zones.map(|(zone, &(ready, unready))| ([zone.clone()], ((ready + unready) as f64, unready as f64))).collect();
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
        let mut census = Census::default();
        [&well, &unwell].into_iter().for_each(|node| census.set(node));
        let text = crate::metrics::shown(|text| write(text, &census));
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
            let mut census = Census::default();
            (0..ready).for_each(|at| census.set(&node(&format!("a{at}"), Some("True"))));
            (0..unready).for_each(|at| census.set(&node(&format!("b{at}"), Some("Unknown"))));
            if other_zone {
                let mut far = node("c", Some("True"));
                far.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), "far".to_owned())].into());
                census.set(&far);
            }
            assert_eq!(census.rates(&config)[":"], expected, "{ready} ready, {unready} not");
        };
        check(3, 1, false, Some(0.1));
        check(0, 1, false, None);
        check(0, 1, true, Some(0.1));
        check(1, 2, false, Some(0.1));
        check(2, 3, false, Some(0.0));
        check(20, 40, false, Some(0.01));
    }

    #[test]
    fn a_node_counts_once_as_it_is_now() {
        let mut census = Census::default();
        census.set(&node("a", Some("True")));
        census.set(&node("b", Some("Unknown")));
        census.set(&node("a", Some("False")));
        assert_eq!(census.states(0.55), [(":".to_owned(), (ZoneState::FullDisruption, 2))].into());
        let mut moved = node("b", Some("True"));
        moved.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), "far".to_owned())].into());
        census.set(&moved);
        assert_eq!(census.unwell().collect::<Vec<_>>(), ["a"]);
        census.remove("a");
        assert_eq!(census.states(0.55), [(":far".to_owned(), (ZoneState::Normal, 1))].into());
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
