//! Sets of topology domains, and how much domains are liked: found node by node, or taken over from tallies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::tallies::PodsByDomain;

/// Key and value of a topology label.
pub(super) type Domain<'a> = (&'a str, &'a str);

/// A set of domains.
#[derive(Default)]
pub(super) struct Domains<'a> {
    keys: BTreeSet<&'a str>,
    each: HashSet<Domain<'a>>,
    tallied: Vec<(&'a str, &'a PodsByDomain)>,
}

impl<'a> Domains<'a> {
    pub(super) fn add(&mut self, domain: Domain<'a>) {
        self.keys.insert(domain.0);
        self.each.insert(domain);
    }

    /// Adds all domains of a key that have pods.
    pub(super) fn add_all(&mut self, key: &'a str, pods: &'a PodsByDomain) {
        self.keys.insert(key);
        self.tallied.push((key, pods));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty() && self.tallied.iter().all(|(_, pods)| pods.is_empty())
    }

    pub(super) fn contain(&self, domain: Domain<'_>) -> bool {
        self.each.contains(&domain)
            || self.tallied.iter().any(|(key, pods)| *key == domain.0 && pods.contains_key(domain.1))
    }

    /// Whether a node with these labels is in one of them.
    pub(super) fn contain_one_of(&self, labels: &BTreeMap<String, String>) -> bool {
        self.keys.iter().any(|key| labels.get(*key).is_some_and(|value| self.contain((key, value))))
    }
}

/// How much domains are liked, or disliked.
#[derive(Default)]
pub(super) struct Preferences<'a> {
    keys: BTreeSet<&'a str>,
    each: HashMap<Domain<'a>, i64>,
    tallied: Vec<(&'a str, i64, &'a PodsByDomain)>,
}

impl<'a> Preferences<'a> {
    pub(super) fn add(&mut self, domain: Domain<'a>, liking: i64) {
        self.keys.insert(domain.0);
        *self.each.entry(domain).or_default() += liking;
    }

    /// Adds so much for each pod in each domain of a key.
    pub(super) fn add_all(&mut self, key: &'a str, weight: i64, pods: &'a PodsByDomain) {
        self.keys.insert(key);
        self.tallied.push((key, weight, pods));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty() && self.tallied.iter().all(|(_, _, pods)| pods.is_empty())
    }

    /// How much a node with these labels is liked.
    pub(super) fn of(&self, labels: &BTreeMap<String, String>) -> i64 {
        let liking = |key: &&str| {
            let value = labels.get(*key)?.as_str();
            let each = self.each.get(&(*key, value)).copied().unwrap_or_default();
            let tallied = self.tallied.iter().filter(|(own, _, _)| own == key);
            let pods = |pods: &PodsByDomain| i64::try_from(pods.get(value).copied().unwrap_or_default()).ok();
            Some(each + tallied.filter_map(|(_, weight, all)| Some(weight * pods(all)?)).sum::<i64>())
        };
        self.keys.iter().filter_map(liking).sum()
    }
}
