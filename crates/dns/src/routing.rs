//! Which block of a Corefile is asked for a name, with the forwarders that it needs. Without a Corefile there is one block
//! for everything: the cluster's names, and the machine's resolvers.
//!
//! Invariant: some block is there for every name; a forwarder that stays the same keeps what it knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;

use crate::corefile::plan::{BlockPlan, ForwardPlan, Target};
use crate::forward::Forwarder;
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::rewrite::Rewrite;

/// The usual file, which may be another one here.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// All blocks.
pub(crate) struct Routing {
    blocks: Vec<Arc<Block>>,
    lameduck: Option<Duration>,
}

/// One block.
pub(crate) struct Block {
    /// Its first zone, as metrics name it.
    pub(crate) label: Arc<str>,
    zones: Vec<Name>,
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) hosts: Option<Hosts>,
    pub(crate) serves_cluster: bool,
    forwards: Vec<Forward>,
    pub(crate) log: bool,
    pub(crate) errors: bool,
}

struct Forward {
    from: Name,
    except: Vec<Name>,
    forwarder: Forwarder,
}

/// What forwarders are made with.
pub(crate) struct Makings {
    /// Whom to ask where no Corefile says so; also what `/etc/resolv.conf` means in one.
    pub(crate) usual: ForwardPlan,
    /// Addresses that would lead back here.
    pub(crate) own: Vec<IpAddr>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Routing {
    /// The blocks of a Corefile, and the usual one where they have none for everything.
    pub(crate) fn new(plans: Vec<BlockPlan>, makings: &Makings, previous: Option<&Self>) -> Self {
        let mut plans = plans;
        if !plans.iter().any(|plan| plan.zones.iter().any(Name::is_root)) {
            plans.push(BlockPlan {
                zones: vec![Name::root()],
                serves_cluster: true,
                forwards: vec![ForwardPlan { from: Name::root(), ..makings.usual.clone() }],
                ..BlockPlan::default()
            });
        }
        let known: Vec<Forwarder> = previous.map(|routing| routing.forwarders().cloned().collect()).unwrap_or_default();
        let lameduck = plans.iter().filter_map(|plan| plan.lameduck).max();
        let blocks = plans.into_iter().map(|plan| Arc::new(Block::new(plan, makings, &known))).collect();
        Self { blocks, lameduck }
    }

    /// The block with the longest zone.
    pub(crate) fn block_of(&self, name: &Name) -> Option<&Arc<Block>> {
        let longest = |block: &Arc<Block>| {
            block.zones.iter().filter(|zone| zone.zone_of(name)).map(|zone| zone.num_labels()).max()
        };
        let fitting = self.blocks.iter().filter_map(|block| Some((longest(block)?, block)));
        fitting.max_by_key(|(labels, _)| *labels).map(|(_, block)| block)
    }

    /// All forwarders.
    pub(crate) fn forwarders(&self) -> impl Iterator<Item = &Forwarder> {
        self.blocks.iter().flat_map(|block| block.forwards.iter().map(|forward| &forward.forwarder))
    }

    /// The forwarder for what nothing else is said about.
    pub(crate) fn default_forwarder(&self) -> Option<&Forwarder> {
        self.block_of(&Name::root())?.forwarder_of(&Name::root())
    }

    /// How many answers with and without records each block keeps.
    pub(crate) fn cache_sizes(&self) -> BTreeMap<Arc<str>, (usize, usize)> {
        let mut sizes = BTreeMap::new();
        for block in &self.blocks {
            for forward in &block.forwards {
                let (successes, denials) = forward.forwarder.cache_size();
                let size: &mut (usize, usize) = sizes.entry(block.label.clone()).or_default();
                *size = (size.0 + successes, size.1 + denials);
            }
        }
        sizes
    }

    /// For how long it goes on answering when it is to end, if a block says so; the longest time counts, as it is one server.
    pub(crate) fn lameduck(&self) -> Option<Duration> {
        self.lameduck
    }

    /// How many names `hosts` has, in all blocks.
    pub(crate) fn hosts(&self) -> usize {
        self.blocks.iter().filter_map(|block| block.hosts.as_ref()).map(Hosts::len).sum()
    }
}

impl Block {
    fn new(plan: BlockPlan, makings: &Makings, known: &[Forwarder]) -> Self {
        let label: Arc<str> = plan.zones.first().map_or_else(|| ".".to_owned(), Name::to_ascii).into();
        let forwards = plan.forwards.into_iter().map(|plan| {
            let plan = with_usual(plan, &makings.usual);
            let (from, except) = (plan.from.clone(), plan.except.clone());
            let kept = known.iter().find(|forwarder| *forwarder.plan() == plan).cloned();
            let new = || Forwarder::new(plan, makings.own.clone(), label.clone(), makings.metrics.clone());
            Forward { from, except, forwarder: kept.unwrap_or_else(new) }
        });
        Self {
            forwards: forwards.collect(),
            label: label.clone(),
            zones: plan.zones,
            rewrites: plan.rewrites,
            hosts: plan.hosts,
            serves_cluster: plan.serves_cluster,
            log: plan.log,
            errors: plan.errors,
        }
    }

    /// Who is to be asked for a name; nobody where no `forward` is about it.
    pub(crate) fn forwarder_of(&self, name: &Name) -> Option<&Forwarder> {
        let is_about = |forward: &&Forward| {
            forward.from.zone_of(name) && !forward.except.iter().any(|except| except.zone_of(name))
        };
        self.forwards.iter().find(is_about).map(|forward| &forward.forwarder)
    }
}

/// What the machine was told counts more than the file that it would read otherwise.
fn with_usual(mut plan: ForwardPlan, usual: &ForwardPlan) -> ForwardPlan {
    let is_usual = |target: &Target| *target == Target::File(RESOLV_CONF.into());
    let targets = std::mem::take(&mut plan.targets).into_iter();
    plan.targets =
        targets.flat_map(|target| if is_usual(&target) { usual.targets.clone() } else { vec![target] }).collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::{parse, plan};

    fn name(text: &str) -> Name {
        plan::name(text).unwrap()
    }

    fn makings() -> Makings {
        let usual = crate::forward::usual_plan(&["10.9.9.9:53".parse().unwrap()], "/nonexistent".into());
        Makings { usual, own: vec!["10.96.0.10".parse().unwrap()], metrics: Arc::default() }
    }

    fn routing(text: &str, previous: Option<&Routing>) -> Routing {
        let (plans, _) = plan::plan(&parse(text).unwrap(), &name("cluster.local"));
        Routing::new(plans, &makings(), previous)
    }

    #[test]
    fn names_are_asked_of_whom_they_belong_to() {
        let routing = routing(
            "corp.example {\n forward . 10.0.0.1\n}\n\
             . {\n forward . /etc/resolv.conf {\n except secret.example\n }\n forward example.org 10.0.0.2 10.96.0.10\n}\n",
            None,
        );
        let check = |asked: &str, expected: &str| {
            let block = routing.block_of(&name(asked)).unwrap();
            let servers = block.forwarder_of(&name(asked)).map(|forwarder| forwarder.refresh().servers);
            let shown = servers.map_or("nobody".to_owned(), |all| format!("{all:?}"));
            assert_eq!(format!("{} {shown}", block.label), expected, "{asked}");
        };
        check("www.CORP.example", "corp.example. [10.0.0.1:53]");
        check("www.example.org", ". [10.0.0.2:53]");
        check("www.example", ". [10.9.9.9:53]");
        check("a.secret.example", ". nobody");
        assert!(routing.block_of(&name("x")).unwrap().serves_cluster);
    }

    #[test]
    fn without_a_block_for_everything_the_usual_one_is_there() {
        let routing = routing("corp.example {\n forward . 10.0.0.1\n}\n", None);
        assert_eq!(routing.default_forwarder().unwrap().refresh().servers, ["10.9.9.9:53".parse().unwrap()]);
        assert!(Routing::new(Vec::new(), &makings(), None).default_forwarder().is_some());
    }

    #[test]
    fn what_stays_the_same_is_kept() {
        let old = routing("corp.example {\n forward . 10.0.0.1\n}\n", None);
        let new =
            routing("corp.example {\n log\n forward . 10.0.0.1\n}\nb.example {\n forward . 10.0.0.3\n}\n", Some(&old));
        let of = |routing: &Routing| {
            let forwarder = routing.block_of(&name("corp.example")).unwrap().forwarder_of(&name("corp.example"));
            std::ptr::from_ref(forwarder.unwrap().plan())
        };
        assert_eq!(of(&old), of(&new));
    }
}
