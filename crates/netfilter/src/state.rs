//! The pure engine: what a table should hold, what the kernel is known to hold, and the transaction between the two.
//!
//! Invariants: after a transaction is confirmed, kernel and desire agree on everything that was dirty; the size of a
//! difference depends on what changed, never on how much there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::model::{Element, ElementKey, Fragment, SetSpec, Skeleton};
use crate::script::Script;
use crate::snapshot::Snapshot;

/// One table: skeleton, fragments by owner, and what of it is in the kernel.
#[derive(Debug)]
pub struct TableState {
    skeleton: Skeleton,
    owned: HashMap<Arc<str>, Owned>,
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, SetSpec>,
    elements: BTreeMap<Arc<ElementKey>, Claims>,
    contested: BTreeSet<Arc<ElementKey>>,
    kernel: Kernel,
    dirty: Dirty,
}

/// Who wants an element, the one that has it first, and what the kernel holds of it.
#[derive(Debug, Default)]
struct Claims {
    by_owner: Vec<(Arc<str>, Element)>,
    held: Option<u64>,
}

/// The names an owner brought.
#[derive(Debug, Default)]
struct Owned {
    chains: Vec<String>,
    sets: Vec<String>,
    elements: Vec<Arc<ElementKey>>,
}

/// What the kernel holds of the fragments.
#[derive(Debug, Default)]
struct Kernel {
    chains: BTreeMap<String, ChainMark>,
    sets: BTreeMap<String, SetSpec>,
    /// Chains that are emptied but still there.
    stale: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChainMark {
    hash: u64,
    rules: usize,
}

#[derive(Debug, Default)]
struct Dirty {
    chains: BTreeSet<String>,
    sets: BTreeSet<String>,
    elements: BTreeSet<Arc<ElementKey>>,
}

impl TableState {
    /// A table that the kernel does not hold yet, with no fragments.
    pub fn new(skeleton: Skeleton) -> Self {
        Self {
            skeleton,
            owned: HashMap::new(),
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            elements: BTreeMap::new(),
            contested: BTreeSet::new(),
            kernel: Kernel::default(),
            dirty: Dirty::default(),
        }
    }

    /// The skeleton.
    pub fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// The owners that have a fragment, in no order.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owned.keys().map(AsRef::as_ref)
    }

    /// Gives an owner a fragment instead of the one it had; an empty one removes the owner.
    pub fn put(&mut self, owner: &str, fragment: Fragment) {
        let old = self.owned.remove(owner).unwrap_or_default();
        for name in old.chains.iter().filter(|name| !fragment.chains.contains_key(*name)) {
            self.chains.remove(name);
            self.dirty.chains.insert(name.clone());
        }
        for name in old.sets.iter().filter(|name| !fragment.sets.contains_key(*name)) {
            self.sets.remove(name);
            self.dirty.sets.insert(name.clone());
        }
        for key in old.elements.iter().filter(|key| !fragment.elements.contains_key(key.as_ref())) {
            self.unclaim(key, owner);
        }
        if !fragment.is_empty() {
            self.take_in(owner, fragment);
        }
    }

    fn take_in(&mut self, owner: &str, fragment: Fragment) {
        let mut owned = Owned {
            chains: fragment.chains.keys().cloned().collect(),
            sets: fragment.sets.keys().cloned().collect(),
            elements: Vec::with_capacity(fragment.elements.len()),
        };
        for (name, rules) in fragment.chains {
            if self.chains.get(&name) != Some(&rules) {
                self.dirty.chains.insert(name.clone());
                self.chains.insert(name, rules);
            }
        }
        for (name, spec) in fragment.sets {
            if self.sets.get(&name) != Some(&spec) {
                self.dirty.sets.insert(name.clone());
                self.sets.insert(name, spec);
            }
        }
        let owner: Arc<str> = owner.into();
        for (key, element) in fragment.elements {
            owned.elements.push(self.claim(&owner, key, element));
        }
        self.owned.insert(owner, owned);
    }

    fn claim(&mut self, owner: &Arc<str>, key: ElementKey, element: Element) -> Arc<ElementKey> {
        let key = self.elements.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone());
        let by_owner = &mut self.elements.entry(key.clone()).or_default().by_owner;
        match by_owner.binary_search_by(|(claimant, _)| claimant.cmp(owner)) {
            Ok(at) if by_owner[at].1 == element => return key,
            Ok(at) => by_owner[at].1 = element,
            Err(at) => by_owner.insert(at, (owner.clone(), element)),
        }
        if by_owner.len() > 1 {
            self.contested.insert(key.clone());
        }
        self.dirty.elements.insert(key.clone());
        key
    }

    fn unclaim(&mut self, key: &Arc<ElementKey>, owner: &str) {
        if let Some(claims) = self.elements.get_mut(key) {
            claims.by_owner.retain(|(claimant, _)| **claimant != *owner);
            if claims.by_owner.len() < 2 {
                self.contested.remove(key);
            }
        }
        self.dirty.elements.insert(key.clone());
    }

    /// Keys that more than one owner claims, with the owners, the one that has it first.
    pub fn conflicts(&self) -> impl Iterator<Item = (&ElementKey, Vec<&str>)> {
        self.contested.iter().filter_map(|key| {
            let claims = self.elements.get(key)?;
            Some((key.as_ref(), claims.by_owner.iter().map(|(owner, _)| owner.as_ref()).collect()))
        })
    }

    /// Whether anything is to be done.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty.chains.is_empty() && self.dirty.sets.is_empty() && self.dirty.elements.is_empty())
    }

    /// The sets whose definition changed; a difference can't express that, a replacement can.
    pub fn changed_sets(&self) -> Vec<&str> {
        let both =
            self.dirty.sets.iter().filter_map(|name| Some((name, self.sets.get(name)?, self.kernel.sets.get(name)?)));
        both.filter(|(_, desired, held)| desired != held).map(|(name, ..)| name.as_str()).collect()
    }

    /// The transaction from what the kernel holds to what it should hold. Chains that are no longer wanted are emptied
    /// and become stale: kernels before 6.2 refuse to delete a chain right after the last reference to it went.
    pub fn difference(&self) -> String {
        let mut script = self.script();
        let Dirty { chains, sets, elements } = &self.dirty;
        for name in sets.iter().filter(|name| !self.kernel.sets.contains_key(*name)) {
            if let Some(spec) = self.sets.get(name) {
                script.add_container(name, spec);
            }
        }
        let wanted: Vec<_> = chains.iter().filter_map(|name| self.chains.get_key_value(name)).collect();
        let wanted: Vec<_> =
            wanted.into_iter().filter(|(name, rules)| self.kernel.chains.get(*name) != Some(&mark(rules))).collect();
        for (name, _) in wanted.iter().filter(|(name, _)| !self.kernel.has_chain(name)) {
            script.add_chain(name, None);
        }
        for (name, rules) in wanted {
            if self.kernel.chains.contains_key(name) {
                script.flush_chain(name);
            }
            rules.iter().for_each(|rule| script.add_rule(name, rule));
        }
        self.write_elements(&mut script, elements);
        for name in chains.iter().filter(|name| !self.chains.contains_key(*name)) {
            if self.kernel.chains.contains_key(name) {
                script.flush_chain(name);
            }
        }
        for name in sets.iter().filter(|name| !self.sets.contains_key(*name) && self.kernel.sets.contains_key(*name)) {
            script.delete_set(name);
        }
        script.finish()
    }

    fn write_elements(&self, script: &mut Script, dirty: &BTreeSet<Arc<ElementKey>>) {
        let mut gone: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut new: BTreeMap<&str, Vec<(&str, &Element)>> = BTreeMap::new();
        for key in dirty {
            let Some(claims) = self.elements.get(key) else { continue };
            let (held, desired) = (claims.held, claims.first());
            if held == desired.map(hash) {
                continue;
            }
            if held.is_some() {
                gone.entry(&key.container).or_default().push(&key.key);
            }
            if let Some(element) = desired {
                new.entry(&key.container).or_default().push((&key.key, element));
            }
        }
        for (container, keys) in gone {
            script.delete_elements(container, keys.into_iter());
        }
        for (container, elements) in new {
            script.add_elements(container, elements.into_iter());
        }
    }

    /// Takes note that [`difference`](Self::difference) is in the kernel.
    pub fn confirm_difference(&mut self) {
        let Dirty { chains, sets, elements } = std::mem::take(&mut self.dirty);
        for name in chains {
            match self.chains.get(&name) {
                Some(rules) => {
                    self.kernel.stale.remove(&name);
                    self.kernel.chains.insert(name, mark(rules));
                }
                None => {
                    if self.kernel.chains.remove(&name).is_some() {
                        self.kernel.stale.insert(name);
                    }
                }
            }
        }
        for name in sets {
            match self.sets.get(&name) {
                Some(spec) => self.kernel.sets.insert(name, spec.clone()),
                None => self.kernel.sets.remove(&name),
            };
        }
        for key in elements {
            let Some(claims) = self.elements.get_mut(&key) else { continue };
            claims.held = claims.first().map(hash);
            if claims.held.is_none() {
                self.elements.remove(&key);
            }
        }
    }

    /// The transaction that makes an existing table (of an earlier process, or one that somebody else has changed) what
    /// it should be without an instant in which packets see less. What packets put into sets stays.
    pub fn adoption(&self, existing: &Snapshot) -> String {
        let mut script = self.script();
        let Skeleton { comment, containers, chains, .. } = &self.skeleton;
        script.add_table(comment);
        containers.iter().for_each(|(name, spec)| script.add_container(name, spec));
        self.sets.iter().for_each(|(name, spec)| script.add_container(name, spec));
        chains.iter().for_each(|(name, chain)| script.add_chain(name, chain.hook.as_ref()));
        self.chains.keys().for_each(|name| script.add_chain(name, None));
        existing.rules_by_chain.keys().for_each(|name| script.flush_chain(name));
        containers.iter().for_each(|(name, spec)| script.flush_container(name, spec));
        for (name, chain) in chains {
            chain.rules.iter().for_each(|rule| script.add_rule(name, rule));
        }
        for (name, rules) in &self.chains {
            rules.iter().for_each(|rule| script.add_rule(name, rule));
        }
        for name in containers.keys() {
            let elements = self.elements.range(first_of(name)..).take_while(|(key, _)| key.container == *name);
            let elements = elements.filter_map(|(key, claims)| Some((key.key.as_str(), claims.first()?)));
            script.add_elements(name, elements);
        }
        for name in
            existing.sets.iter().filter(|name| !self.sets.contains_key(*name) && !containers.contains_key(*name))
        {
            script.delete_set(name);
        }
        existing.maps.iter().filter(|name| !containers.contains_key(*name)).for_each(|name| script.delete_map(name));
        script.finish()
    }

    /// The transaction that throws the table away and makes it anew. What packets put into sets is lost.
    pub fn replacement(&self) -> String {
        let mut script = self.script();
        script.add_table(&self.skeleton.comment);
        script.delete_table();
        script.finish() + &self.adoption(&Snapshot::default())
    }

    /// Takes note that [`adoption`](Self::adoption) or [`replacement`](Self::replacement) is in the kernel; `existing`
    /// is what was adopted, empty for a replacement.
    pub fn confirm_adoption(&mut self, existing: &Snapshot) {
        self.dirty = Dirty::default();
        self.elements.retain(|_, claims| {
            claims.held = claims.first().map(hash);
            claims.held.is_some()
        });
        let known = |name: &String| self.chains.contains_key(name) || self.skeleton.chains.contains_key(name);
        self.kernel = Kernel {
            chains: self.chains.iter().map(|(name, rules)| (name.clone(), mark(rules))).collect(),
            sets: self.sets.clone(),
            stale: existing.rules_by_chain.keys().filter(|name| !known(name)).cloned().collect(),
        };
    }

    /// Chains that are empty, unreferenced and can go.
    pub fn stale(&self) -> &BTreeSet<String> {
        &self.kernel.stale
    }

    /// The transaction that deletes some stale chains.
    pub fn sweep<'a>(&self, chains: impl Iterator<Item = &'a str>) -> String {
        let mut script = self.script();
        chains.filter(|name| self.kernel.stale.contains(*name)).for_each(|name| script.delete_chain(name));
        script.finish()
    }

    /// Takes note that stale chains are deleted.
    pub fn confirm_sweep<'a>(&mut self, chains: impl Iterator<Item = &'a str>) {
        chains.for_each(|name| {
            self.kernel.stale.remove(name);
        });
    }

    /// Whether the kernel's table has the shape that we left: every chain with its number of rules, every container.
    pub fn matches(&self, existing: &Snapshot) -> bool {
        let rules_in = |name: &str| existing.rules_by_chain.get(name).copied();
        let Skeleton { chains, containers, .. } = &self.skeleton;
        chains.iter().all(|(name, chain)| rules_in(name) == Some(chain.rules.len()))
            && self.kernel.chains.iter().all(|(name, mark)| rules_in(name) == Some(mark.rules))
            && containers.iter().all(|(name, spec)| match spec.value {
                Some(_) => existing.maps.contains(name),
                None => existing.sets.contains(name),
            })
            && self.kernel.sets.keys().all(|name| existing.sets.contains(name))
    }

    /// Whether the sets and maps of the skeleton have as many elements as we left in them. Those with flags are left out:
    /// packets put elements into some, and the kernel joins those of others.
    pub fn has_as_many(&self, counted: &BTreeMap<String, usize>) -> bool {
        let mut held: HashMap<&str, usize> = HashMap::new();
        for (key, _) in self.elements.iter().filter(|(_, claims)| claims.held.is_some()) {
            *held.entry(key.container.as_ref()).or_default() += 1;
        }
        let plain = self.skeleton.containers.iter().filter(|(_, spec)| spec.flags.is_none());
        plain
            .map(|(name, _)| name.as_str())
            .all(|name| counted.get(name).copied().unwrap_or_default() == held.get(name).copied().unwrap_or_default())
    }

    fn script(&self) -> Script {
        Script::new(self.skeleton.family, &self.skeleton.name)
    }
}

impl Claims {
    fn first(&self) -> Option<&Element> {
        self.by_owner.first().map(|(_, element)| element)
    }
}

impl Kernel {
    fn has_chain(&self, name: &str) -> bool {
        self.chains.contains_key(name) || self.stale.contains(name)
    }
}

fn first_of(container: &str) -> Arc<ElementKey> {
    Arc::new(ElementKey { container: container.to_owned().into(), key: String::new() })
}

fn mark(rules: &Vec<String>) -> ChainMark {
    ChainMark { hash: hash(rules), rules: rules.len() }
}

fn hash<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Chain, Family};

    fn table() -> TableState {
        let containers = BTreeMap::from([("ips".to_owned(), SetSpec::verdict_map("ipv4_addr", "x"))]);
        let chains = BTreeMap::from([("services".to_owned(), Chain { hook: None, rules: vec!["accept".into()] })]);
        TableState::new(Skeleton { family: Family::Ip, name: "t".into(), comment: "c".into(), containers, chains })
    }

    fn fragment(chain: &str, rules: &[&str], ip: &str) -> Fragment {
        let mut fragment = Fragment::default();
        fragment.chains.insert(chain.to_owned(), rules.iter().map(|rule| (*rule).to_owned()).collect());
        fragment.map("ips", ip.to_owned(), format!("goto {chain}"), None);
        fragment
    }

    fn step(table: &mut TableState, expected: &str) {
        assert_eq!(table.difference(), expected);
        table.confirm_difference();
        assert!(!table.is_dirty());
        assert_eq!(table.difference(), "");
    }

    #[test]
    fn a_change_costs_what_changed() {
        let mut table = table();
        for n in 0..100 {
            table.put(&format!("s{n}"), fragment(&format!("c{n}"), &["drop"], &format!("10.0.0.{n}")));
        }
        table.confirm_difference();
        table.put("s7", fragment("c7", &["drop", "accept"], "10.0.0.7"));
        step(&mut table, "flush chain ip t c7\nadd rule ip t c7 drop\nadd rule ip t c7 accept\n");
        table.put("s7", fragment("c7", &["drop", "accept"], "10.0.1.7"));
        step(&mut table, "delete element ip t ips { 10.0.0.7 }\nadd element ip t ips { 10.0.1.7 : goto c7 }\n");
        table.put("s7", fragment("c7", &["drop", "accept"], "10.0.1.7"));
        assert!(!table.is_dirty());
    }

    #[test]
    fn a_gone_chain_is_emptied_then_swept_or_revived() {
        let mut table = table();
        table.put("a", fragment("c", &["drop"], "1.1.1.1"));
        step(&mut table, "add chain ip t c\nadd rule ip t c drop\nadd element ip t ips { 1.1.1.1 : goto c }\n");
        table.put("a", Fragment::default());
        step(&mut table, "delete element ip t ips { 1.1.1.1 }\nflush chain ip t c\n");
        assert_eq!(table.stale().len(), 1);
        table.put("a", fragment("c", &["accept"], "1.1.1.1"));
        step(&mut table, "add rule ip t c accept\nadd element ip t ips { 1.1.1.1 : goto c }\n");
        assert!(table.stale().is_empty());
        table.put("a", Fragment::default());
        table.confirm_difference();
        assert_eq!(table.sweep(["c", "never"].into_iter()), "delete chain ip t c\n");
        table.confirm_sweep(["c"].into_iter());
        table.put("a", fragment("c", &["drop"], "1.1.1.1"));
        assert!(table.difference().starts_with("add chain ip t c\n"));
    }

    #[test]
    fn the_first_owner_has_a_contested_key_and_the_next_inherits_it() {
        let mut table = table();
        table.put("b", fragment("cb", &["drop"], "1.1.1.1"));
        table.confirm_difference();
        table.put("a", fragment("ca", &["drop"], "1.1.1.1"));
        step(
            &mut table,
            "add chain ip t ca\nadd rule ip t ca drop\n\
             delete element ip t ips { 1.1.1.1 }\nadd element ip t ips { 1.1.1.1 : goto ca }\n",
        );
        assert_eq!(table.conflicts().next().unwrap().1, ["a", "b"]);
        table.put("a", Fragment::default());
        step(
            &mut table,
            "delete element ip t ips { 1.1.1.1 }\nadd element ip t ips { 1.1.1.1 : goto cb }\nflush chain ip t ca\n",
        );
        assert_eq!(table.conflicts().count(), 0);
    }

    #[test]
    fn an_existing_table_is_adopted_in_one_transaction() {
        let mut table = table();
        table.put("a", fragment("new", &["drop"], "1.1.1.1"));
        let rules_by_chain = BTreeMap::from([("services".to_owned(), 1), ("old".to_owned(), 3)]);
        let sets = BTreeSet::from(["affinity-old".to_owned()]);
        let existing = Snapshot { rules_by_chain, sets, maps: BTreeSet::from(["ips".to_owned(), "other".to_owned()]) };
        assert_eq!(
            table.adoption(&existing),
            "add table ip t { comment \"c\" ; }\n\
             add map ip t ips { type ipv4_addr : verdict ; comment \"x\" ; }\n\
             add chain ip t services\nadd chain ip t new\n\
             flush chain ip t old\nflush chain ip t services\nflush map ip t ips\n\
             add rule ip t services accept\nadd rule ip t new drop\n\
             add element ip t ips { 1.1.1.1 : goto new }\n\
             delete set ip t affinity-old\ndelete map ip t other\n"
        );
        table.confirm_adoption(&existing);
        assert!(!table.is_dirty());
        assert_eq!(table.stale().iter().collect::<Vec<_>>(), ["old"]);
        assert!(table.replacement().starts_with("add table ip t { comment \"c\" ; }\ndelete table ip t\nadd table"));
    }

    #[test]
    fn a_foreign_change_of_shape_is_seen() {
        let mut table = table();
        table.put("a", fragment("c", &["drop"], "1.1.1.1"));
        table.confirm_adoption(&Snapshot::default());
        let rules_by_chain = BTreeMap::from([("services".to_owned(), 1), ("c".to_owned(), 1), ("extra".to_owned(), 1)]);
        let good = Snapshot { rules_by_chain, sets: BTreeSet::new(), maps: BTreeSet::from(["ips".to_owned()]) };
        assert!(table.matches(&good));
        let mut emptied = good.clone();
        emptied.rules_by_chain.insert("c".to_owned(), 0);
        assert!(!table.matches(&emptied));
        let mut without_map = good.clone();
        without_map.maps.clear();
        assert!(!table.matches(&without_map));
        assert!(!table.matches(&Snapshot::default()));
    }
}
