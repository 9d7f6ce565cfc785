//! How many pods of each shape are in each domain of a topology label: what spreading and affinity between pods ask about
//! all nodes, kept up to date pod by pod instead of counted anew for every pod that is placed.
//!
//! Not a judge of which pods count. Invariant: a tally says what counting all nodes would say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::node_info::NodeInfo;
use crate::shape::Shape;

#[cfg(test)]
mod tests;

/// More tallies than these are not kept: then all are forgotten, and those that are still asked for are made again.
const MOST: usize = 32;

/// Pods by the domain that they are in; none is zero.
pub(crate) type PodsByDomain = HashMap<Arc<str>, usize>;

/// Which domains are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    /// The label whose values are the domains.
    pub(crate) key: String,
    /// Labels that a node must have besides, to be counted.
    pub(crate) with: Vec<String>,
}

impl Topology {
    /// The domains of all nodes that have a label.
    pub(crate) fn of(key: &str) -> Self {
        Self { key: key.to_owned(), with: Vec::new() }
    }

    fn domain<'a>(&self, labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let counts = self.with.iter().all(|key| labels.contains_key(key));
        labels.get(&self.key).filter(|_| counts).map(String::as_str)
    }

    fn is(&self, key: &str, with: &[&str]) -> bool {
        self.key == key && self.with == with
    }
}

/// The count for one topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    topology: Topology,
    nodes: usize,
    domains: HashSet<Arc<str>>,
    by_shape: HashMap<String, (Arc<Shape>, PodsByDomain)>,
}

impl Tally {
    fn new(topology: Topology, nodes: &[Arc<NodeInfo>]) -> Self {
        let mut tally = Self { topology, nodes: 0, domains: HashSet::new(), by_shape: HashMap::new() };
        for node in nodes {
            let Some(domain) = tally.topology.domain(node.labels()) else { continue };
            tally.nodes += 1;
            if !tally.domains.contains(domain) {
                tally.domains.insert(domain.into());
            }
            for (shape, count) in &node.shapes {
                tally.add(domain, shape, *count);
            }
        }
        tally
    }

    /// The label whose values are the domains.
    pub(crate) fn key(&self) -> &str {
        &self.topology.key
    }

    /// How many nodes are in a domain.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// The domains, with or without pods.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|domain| &**domain)
    }

    /// The shapes of the pods that are in a domain, with where these are.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&Arc<Shape>, &PodsByDomain)> {
        self.by_shape.values().map(|(shape, pods)| (shape, pods))
    }

    fn add(&mut self, domain: &str, shape: &Arc<Shape>, count: usize) {
        if !self.by_shape.contains_key(shape.key()) {
            self.by_shape.insert(shape.key().to_owned(), (shape.clone(), PodsByDomain::new()));
        }
        let Some((_, pods)) = self.by_shape.get_mut(shape.key()) else { return };
        match pods.get_mut(domain) {
            Some(own) => *own += count,
            None => {
                let domain = self.domains.get(domain).cloned().unwrap_or_else(|| domain.into());
                pods.insert(domain, count);
            }
        }
    }

    fn remove(&mut self, domain: &str, shape: &Shape) {
        let Some((_, pods)) = self.by_shape.get_mut(shape.key()) else { return };
        if let Some(own) = pods.get_mut(domain) {
            *own -= 1;
            if *own == 0 {
                pods.remove(domain);
            }
        }
        if pods.is_empty() {
            self.by_shape.remove(shape.key());
        }
    }
}

/// The tallies that somebody asked for.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Vec<Tally>);

impl Tallies {
    /// Makes a tally of these nodes, where there is none.
    pub(crate) fn ensure(&mut self, topology: Topology, nodes: &[Arc<NodeInfo>]) {
        if self.0.iter().any(|tally| tally.topology == topology) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.push(Tally::new(topology, nodes));
    }

    /// The tally of the domains of a label, on nodes that have all of some labels.
    pub(crate) fn get(&self, key: &str, with: &[&str]) -> Option<&Tally> {
        self.0.iter().find(|tally| tally.topology.is(key, with))
    }

    /// Nodes came, went or moved.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// A pod came to a node with these labels.
    pub(crate) fn add(&mut self, labels: &BTreeMap<String, String>, shape: &Arc<Shape>) {
        for tally in &mut self.0 {
            if let Some(domain) = tally.topology.domain(labels) {
                tally.add(domain, shape, 1);
            }
        }
    }

    /// A pod left a node with these labels.
    pub(crate) fn remove(&mut self, labels: &BTreeMap<String, String>, shape: &Shape) {
        for tally in &mut self.0 {
            if let Some(domain) = tally.topology.domain(labels) {
                tally.remove(domain, shape);
            }
        }
    }

    /// Whether all of them say what counting these nodes says.
    #[cfg(test)]
    pub(crate) fn are_true(&self, nodes: &[Arc<NodeInfo>]) -> bool {
        self.0.iter().all(|tally| *tally == Tally::new(tally.topology.clone(), nodes))
    }
}
