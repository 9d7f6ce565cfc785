//! All rules, one to a file, in groups as the catalogue of failures has them. See `docs/guides/add-a-doctor-rule.md`.
//!
//! Invariant: an id names one rule, and is never given to another.

#[cfg(test)]
mod calm;
mod certificates;
mod control_plane;
mod etcd;
mod events;
mod extension;
#[cfg(test)]
pub(crate) mod fixtures;
mod lifecycle;
mod lines;
mod machine;
mod network;
mod node;
#[cfg(test)]
pub(crate) mod planned;
mod preflight;
mod quantity;
mod selector;
mod signs;
mod storage;
mod workload;

pub(crate) use control_plane::is_of_the_control_plane;

use crate::evidence::Evidence;
use crate::finding::Finding;

/// How low a cause lies: what lies lower explains what lies higher, not the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Disks, memory, time.
    Hardware,
    /// Settings of the kernel, modules, control groups.
    System,
    /// The container runtime.
    Runtime,
    /// The node agent.
    Kubelet,
    /// The store.
    Etcd,
    /// The API server.
    Api,
    /// Scheduler and controller manager.
    Controllers,
    /// The pod network.
    Network,
    /// The cluster's names.
    Dns,
    /// Webhooks and aggregated servers.
    Extension,
    /// What runs on the cluster.
    Workload,
}

/// Where a cause has its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Wherever they show.
    Anywhere,
    /// On the same machine, or with pods on it.
    SameNode,
    /// With the same object; a file that makes a static pod and that pod are the same.
    SameSubject,
    /// With the pods of the control plane.
    ControlPlane,
    /// With the objects that the finding names as harmed.
    Touched,
}

/// What a cause explains.
#[derive(Debug, Clone, Copy)]
pub struct Explains {
    /// The ids of other rules.
    pub ids: &'static [&'static str],
    /// Where.
    pub scope: Scope,
}

/// A rule: evidence in, findings out.
pub struct Rule {
    /// The id of the catalogue, as in `A5`.
    pub id: &'static str,
    /// The cause in a few words.
    pub title: &'static str,
    /// How low it lies.
    pub layer: Layer,
    /// What it explains.
    pub explains: &'static [Explains],
    /// Looks for it.
    pub find: fn(&Evidence) -> Vec<Finding>,
}

/// Every rule, in the order of the catalogue.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let groups: [&[&Rule]; 10] = [
        control_plane::RULES,
        etcd::RULES,
        certificates::RULES,
        lifecycle::RULES,
        machine::RULES,
        node::RULES,
        network::RULES,
        extension::RULES,
        storage::RULES,
        workload::RULES,
    ];
    groups.into_iter().flatten().copied()
}

#[cfg(test)]
mod coverage;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_what_is_explained_exists_and_lies_no_lower() {
        let ids: BTreeSet<&str> = rules().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), rules().count());
        for rule in rules() {
            for id in rule.explains.iter().flat_map(|explains| explains.ids) {
                let other = rules().find(|other| other.id == *id);
                let other = other.unwrap_or_else(|| panic!("{} explains {id}, which is no rule", rule.id));
                assert!(other.layer >= rule.layer, "{} cannot explain {id}, which lies lower", rule.id);
                assert_ne!(other.id, rule.id);
            }
        }
    }

    #[test]
    fn nothing_explains_itself_by_detours() {
        let explained = |id: &str| {
            let rule = rules().find(|rule| rule.id == id).expect("it is a rule");
            rule.explains.iter().flat_map(|explains| explains.ids).copied()
        };
        for rule in rules() {
            let (mut seen, mut open) = (BTreeSet::new(), vec![rule.id]);
            while let Some(id) = open.pop() {
                for next in explained(id) {
                    assert_ne!(next, rule.id, "{next} explains itself through {id}");
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
        }
    }
}
