//! What is known of the cluster: namespaces, pods with addresses, policies.

use std::collections::BTreeMap;

use kedge_meta::ObjectKey;

use crate::object::{Peer, Pod, Policy, Rule};

type Labels = BTreeMap<String, String>;

/// The cluster as far as policies look at it.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Labels by the name of the namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// Pods by namespace and name.
    pub pods: BTreeMap<String, BTreeMap<String, Pod>>,
    /// Policies by namespace and name.
    pub policies: BTreeMap<ObjectKey, Policy>,
}

impl World {
    /// Puts a pod in the place of what was known of it; `None` where it has no address.
    pub fn put_pod(&mut self, key: &ObjectKey, pod: Option<Pod>) -> Option<Pod> {
        let namespace = self.pods.entry(key.namespace.clone()).or_default();
        let old = match pod {
            Some(pod) => namespace.insert(key.name.clone(), pod),
            None => namespace.remove(&key.name),
        };
        if namespace.is_empty() {
            self.pods.remove(&key.namespace);
        }
        old
    }

    /// The pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.pods.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods of this node that a policy isolates.
    pub fn subjects<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a Pod> {
        self.pods_in(&policy.namespace).filter(|pod| pod.is_local && policy.pods.matches(&pod.labels))
    }

    /// The policies that isolate a pod, in the order of their names.
    pub fn policies_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Policy> {
        self.policies.values().filter(|policy| policy.selects(pod))
    }

    /// The pods that a policy's peer stands for; none for a block of addresses.
    pub fn pods_of<'a>(&'a self, policy: &'a Policy, peer: &'a Peer) -> Box<dyn Iterator<Item = &'a Pod> + 'a> {
        let Peer::Pods { namespaces, pods } = peer else { return Box::new(std::iter::empty()) };
        let matching = move |pod: &&Pod| pods.matches(&pod.labels);
        match namespaces {
            None => Box::new(self.pods_in(&policy.namespace).filter(matching)),
            Some(selector) => {
                let chosen = self.namespaces.iter().filter(|(_, labels)| selector.matches(labels));
                Box::new(chosen.flat_map(|(name, _)| self.pods_in(name)).filter(matching))
            }
        }
    }

    /// Whether the rules of a policy change with a pod.
    pub fn concerns(&self, policy: &Policy, pod: &Pod) -> bool {
        (pod.is_local && policy.selects(pod)) || policy.rules().any(|rule| self.is_peer(policy, rule, pod))
    }

    fn is_peer(&self, policy: &Policy, rule: &Rule, pod: &Pod) -> bool {
        rule.peers.iter().flatten().any(|peer| match peer {
            Peer::Block { .. } => false,
            Peer::Pods { pods, .. } if !pods.matches(&pod.labels) => false,
            Peer::Pods { namespaces: None, .. } => policy.namespace == pod.namespace,
            Peer::Pods { namespaces: Some(selector), .. } => {
                self.namespaces.get(&pod.namespace).is_some_and(|labels| selector.matches(labels))
            }
        })
    }
}

/// Whether a policy chooses among namespaces in a way that takes in these labels.
pub(crate) fn looks_at_namespace(policy: &Policy, labels: &Labels) -> bool {
    policy.rules().flat_map(|rule| rule.peers.iter().flatten()).any(|peer| match peer {
        Peer::Pods { namespaces: Some(selector), .. } => selector.matches(labels),
        _ => false,
    })
}
