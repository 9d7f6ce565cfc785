//! The schemas and levels in force, made out of the objects in the store.
//!
//! Levels live on from plan to plan, with whoever is in them. Invariant: every request finds a schema, and every schema its
//! level.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderValue;
use kedge_fairness::{
    CATCH_ALL, Digest, EXEMPT, FlowSchema, Limits, PriorityLevel, bootstrap_objects, condition_texts, configure,
    in_order, read_level, read_schema, rebalance,
};
use kedge_store::Record;
use serde_json::Value;

use super::level::{Level, header_value};

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) schemas: Vec<Matched>,
    pub(super) levels: BTreeMap<String, Arc<Level>>,
    /// Schemas whose condition `Dangling` is to say something else: name, and status, reason and message.
    pub(super) dangling: Vec<(String, [String; 3])>,
    pub(super) fair_fraction: f64,
    /// Levels that are no more, and end when nobody is in them.
    pub(super) quiescing: BTreeSet<String>,
}

/// A schema and where it leads.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) schema: FlowSchema,
    pub(super) name: Arc<str>,
    pub(super) uid: HeaderValue,
    pub(super) level: Arc<Level>,
}

impl Plan {
    /// What the objects say; levels of `old` go on.
    pub(super) fn new(old: &Plan, levels: &[Record], schemas: &[Record], server: u64, epoch: Instant) -> Self {
        let mut wanted: BTreeMap<String, PriorityLevel> = BTreeMap::new();
        for record in levels {
            match read_level(&record.value) {
                Ok(level) => drop(wanted.insert(level.name.clone(), level)),
                Err(why) => tracing::warn!(key = record.key.as_str(), %why, "a priority level is passed over"),
            }
        }
        let mut plan = Self { fair_fraction: old.fair_fraction, ..Self::default() };
        let mut found = read_schemas(schemas);
        plan.dangling = found.iter().filter_map(|schema| check_dangling(schema, &wanted)).collect();
        found.retain(|schema| wanted.contains_key(&schema.level));
        imagine(&mut wanted, &mut found);
        plan.take_levels(old, &wanted, epoch);
        plan.limit(server);
        for schema in found {
            let Some(level) = plan.levels.get(&schema.level) else { continue };
            let (name, uid, level) = (schema.name.as_str().into(), header_value(&schema.uid), Arc::clone(level));
            plan.schemas.push(Matched { schema, name, uid, level });
        }
        for level in plan.levels.values() {
            level.keep_counts(|name| {
                plan.schemas.iter().any(|schema| &*schema.name == name && Arc::ptr_eq(&schema.level, level))
            });
        }
        plan
    }

    /// The first schema that a request belongs to.
    pub(super) fn find(&self, digest: &Digest<'_>) -> Option<&Matched> {
        let found = self.schemas.iter().find(|matched| matched.schema.matches(digest));
        found.or_else(|| self.schemas.iter().find(|matched| &*matched.name == CATCH_ALL))
    }

    /// Gives every level its seats for the next period, by what was in demand in the last one.
    pub(super) fn rebalance(&self, server: u64) -> f64 {
        let mut limits: Vec<Limits> = self.levels.values().map(|level| level.observe()).collect();
        let rebalanced = rebalance(&mut limits);
        for (level, limits) in self.levels.values().zip(limits) {
            level.apply(limits, server);
        }
        rebalanced.fair_fraction
    }

    /// Whether there is a level that nothing leads to any more, and nobody is in.
    pub(super) fn has_leftovers(&self) -> bool {
        let is_used = |name: &str| {
            matches!(name, EXEMPT | CATCH_ALL) || self.schemas.iter().any(|matched| matched.schema.level == name)
        };
        self.levels.iter().any(|(name, level)| !is_used(name) && level.is_idle())
    }

    /// A level that is no more stays for as long as somebody is in it.
    fn take_levels(&mut self, old: &Plan, wanted: &BTreeMap<String, PriorityLevel>, epoch: Instant) {
        for level in wanted.values() {
            let known = old.levels.get(&level.name).cloned();
            let taken =
                known.unwrap_or_else(|| Level::new(&level.name, &level.uid, level.spec, Default::default(), epoch));
            taken.update(&level.uid, level.spec);
            self.levels.insert(level.name.clone(), taken);
        }
        for (name, level) in old.levels.iter().filter(|(name, level)| !wanted.contains_key(*name) && !level.is_idle()) {
            self.levels.insert(name.clone(), Arc::clone(level));
            self.quiescing.insert(name.clone());
        }
    }

    fn limit(&mut self, server: u64) {
        let shares: Vec<_> = self.levels.values().map(|level| level.state.lock().spec.shares).collect();
        for (level, configured) in self.levels.values().zip(configure(server, &shares)) {
            level.state.lock().limits.configured = configured;
        }
        self.fair_fraction = self.rebalance(server);
    }
}

fn read_schemas(records: &[Record]) -> Vec<FlowSchema> {
    let mut schemas = Vec::new();
    for record in records {
        match read_schema(&record.value) {
            Ok(schema) => schemas.push(schema),
            Err(why) => tracing::warn!(key = record.key.as_str(), %why, "a flow schema is passed over"),
        }
    }
    in_order(&mut schemas);
    schemas
}

fn check_dangling(schema: &FlowSchema, levels: &BTreeMap<String, PriorityLevel>) -> Option<(String, [String; 3])> {
    let texts = condition_texts(&schema.level, levels.contains_key(&schema.level));
    (texts != schema.dangling).then(|| (schema.name.clone(), texts))
}

/// What is mandatory counts also where its object is not there.
fn imagine(levels: &mut BTreeMap<String, PriorityLevel>, schemas: &mut Vec<FlowSchema>) {
    let objects = bootstrap_objects();
    let object = |kind: &str, name: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.map(Value::to_string).unwrap_or_default()
    };
    for name in [EXEMPT, CATCH_ALL] {
        if !levels.contains_key(name)
            && let Ok(level) = read_level(object("PriorityLevelConfiguration", name).as_bytes())
        {
            levels.insert(name.to_owned(), level);
        }
        if !schemas.iter().any(|schema| schema.name == name)
            && let Ok(schema) = read_schema(object("FlowSchema", name).as_bytes())
        {
            let place = if name == EXEMPT { 0 } else { schemas.len() };
            schemas.insert(place, schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::FutureExt;
    use kedge_fairness::Work;
    use kedge_store::{Key, Revision};
    use serde_json::json;
    use tokio::sync::Notify;

    use super::super::dump::About;
    use super::super::level::Request;
    use super::*;

    fn record(object: &Value) -> Record {
        let value = Bytes::from(object.to_string());
        Record { key: Key::new("/x"), value, splice_at: None, created: Revision(1), modified: Revision(1) }
    }

    fn records(kind: &str) -> Vec<Record> {
        bootstrap_objects().iter().filter(|object| object["kind"] == kind).map(record).collect()
    }

    #[test]
    fn what_is_mandatory_is_there_without_objects() {
        let plan = Plan::new(&Plan::default(), &[], &[], 600, Instant::now());
        assert_eq!(plan.levels.keys().collect::<Vec<_>>(), [CATCH_ALL, EXEMPT]);
        let groups = ["system:masters".to_owned()];
        let digest = Digest { groups: &groups, ..Digest::default() };
        assert_eq!(&*plan.find(&digest).unwrap().name, EXEMPT);
        assert_eq!(&*plan.find(&Digest::default()).unwrap().name, CATCH_ALL);
    }

    #[tokio::test]
    async fn who_waits_is_lent_what_others_do_not_need() {
        let epoch = Instant::now();
        let (levels, schemas) = (records("PriorityLevelConfiguration"), records("FlowSchema"));
        let plan = Plan::new(&Plan::default(), &levels, &schemas, 600, epoch);
        let level = &plan.levels["global-default"];
        let about = Arc::new(About { user: String::new(), verb: "list", path: String::new(), distinguisher: None });
        let request = Request { schema: "x".into(), work: Work::of(8), hash: 0, is_watch: false, about };
        let (scarce, wait) = (Notify::new(), Duration::from_secs(3600));
        let mut running = Vec::new();
        let seats = level.state.lock().limits.current;
        for _ in 0..seats / 8 {
            running.push(level.enter(request.clone(), wait, &scarce).await.unwrap());
        }
        let mut waiting = Box::pin(level.enter(request, wait, &scarce));
        assert!((&mut waiting).now_or_never().is_none(), "all seats are taken");
        scarce.notified().await;
        plan.rebalance(600);
        running.push(waiting.await.unwrap());
    }

    #[test]
    fn seats_and_conditions_follow_the_objects() {
        let epoch = Instant::now();
        let plan =
            Plan::new(&Plan::default(), &records("PriorityLevelConfiguration"), &records("FlowSchema"), 600, epoch);
        let limits = |name: &str| plan.levels[name].state.lock().limits.configured;
        assert_eq!((limits("workload-low").nominal, limits("workload-low").lower), (245, 24));
        assert_eq!((limits("exempt").nominal, limits("catch-all").nominal), (0, 13));
        assert_eq!(plan.levels["global-default"].state.lock().max_seats, 8);
        assert_eq!(plan.dangling.len(), plan.schemas.len(), "none has its condition yet");
        assert!(plan.dangling.iter().all(|(_, texts)| texts[0] == "False"));
        let total: u64 = plan.levels.values().map(|level| level.state.lock().limits.current).sum();
        assert!((595..=610).contains(&total), "all seats are given out: {total}");
        // A level goes, its schema dangles, and what is left has more.
        let fewer: Vec<Record> = records("PriorityLevelConfiguration")
            .into_iter()
            .filter(|record| !record.value.windows(14).any(|text| text == b"\"workload-low\""))
            .collect();
        let next = Plan::new(&plan, &fewer, &records("FlowSchema"), 600, epoch);
        assert!(!next.levels.contains_key("workload-low"));
        assert!(next.dangling.iter().any(|(name, texts)| name == "service-accounts" && texts[1] == "NotFound"));
        assert!(Arc::ptr_eq(&next.levels["system"], &plan.levels["system"]), "those that stay go on");
        assert_eq!(next.levels["system"].state.lock().limits.configured.nominal, 125);
        let groups = ["system:serviceaccounts".to_owned(), "system:authenticated".to_owned()];
        let digest = Digest {
            groups: &groups,
            is_resource: true,
            verb: "get",
            resource: "pods",
            namespace: "a",
            ..Digest::default()
        };
        assert_eq!(&*next.find(&digest).unwrap().name, "global-default");
        // A broken one is passed over.
        let broken = record(&json!({"metadata": {"name": "x"}, "spec": {"type": "Limited"}}));
        assert!(!Plan::new(&next, &[broken], &[], 600, epoch).levels.contains_key("x"));
    }
}
