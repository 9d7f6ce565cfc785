//! The repair of node ports: one that a Service has and nobody is recorded for is recorded, one that is recorded and nobody
//! has is free again, and what only people can mend is told by events.
//!
//! Services and records change in one commit (`admission/service_ledger.rs`), so that this mends what a restored backup, an
//! older version or another range left. Invariant: nothing is written for a Service that has changed meanwhile, and nothing
//! is freed that a Service took meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kedge_kinds::Kind;
use kedge_meta::ApiStatus;
use kedge_store::{CommitError, Condition, Expect, Key, ListRequest, Record, Transaction, Write};
use serde_json::Value;

use crate::admission::{Ledger, NODE_PORTS, node_ports};
use crate::core::{Core, decode};
use crate::object;
use crate::own_request::{Finding, warn};
use crate::reply::store_error;

mod plan;

use plan::{Holder, Step, plan};

/// How often everything is looked at, as upstream's loop does.
const ROUND: Duration = Duration::from_secs(180);
/// How long to wait where the store does not answer.
const PAUSE: Duration = Duration::from_secs(1);
const SOURCE: &str = "portallocator-repair-controller";

/// Runs until it is aborted.
pub(crate) async fn keep_up(core: Arc<Core>) {
    // What stays as it is until people do something is said once.
    let mut told = HashSet::new();
    loop {
        let pause = match round(&core, &mut told).await {
            Ok(()) => ROUND,
            Err(error) => {
                core.metrics.port_repairs.failures.fetch_add(1, Relaxed);
                tracing::debug!(%error, "the records of node ports could not be looked at");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn round(core: &Arc<Core>, told: &mut HashSet<(String, String)>) -> Result<(), ApiStatus> {
    // Records first: a port that is taken after that is in a Service, and is not taken for one that nobody has.
    let records: BTreeMap<u16, Record> = list(core, NODE_PORTS).await?.into_iter().filter_map(numbered).collect();
    let services = list(core, &services().prefix("")).await?;
    let objects = services.iter().map(decode).collect::<Result<Vec<Value>, _>>()?;
    let holders: Vec<Holder> =
        objects.iter().map(|service| Holder { key: object::key(service), ports: node_ports(service) }).collect();
    let owner = |record: &Record| String::from_utf8_lossy(&record.value).into_owned();
    let recorded = records.iter().map(|(port, record)| (*port, owner(record))).collect();
    for step in plan(&holders, &recorded, core.config.service_node_port_range) {
        match step {
            Step::Tell(index, error, finding) => {
                if told.insert((object::meta(&objects[index], "uid").to_owned(), finding.2.clone())) {
                    core.metrics.port_repairs.found(error);
                    tell(core, &objects[index], finding).await;
                }
            }
            Step::Write(index, port, finding) => {
                if write(core, &services[index], &objects[index], port).await? {
                    core.metrics.port_repairs.found("repair");
                    tell(core, &objects[index], finding).await;
                }
            }
            Step::Free(port) => {
                let record = &records[&port];
                let owner =
                    holders.iter().position(|holder| holder.key.to_string().as_bytes() == record.value.as_ref());
                free(core, port, record, owner.map(|index| &services[index])).await?;
            }
        }
    }
    Ok(())
}

async fn list(core: &Core, prefix: &str) -> Result<Vec<Record>, ApiStatus> {
    let request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
    Ok(core.store.list(request).await.map_err(store_error)?.records)
}

fn numbered(record: Record) -> Option<(u16, Record)> {
    let port = record.key.as_str().strip_prefix(NODE_PORTS)?.parse().ok()?;
    Some((port, record))
}

async fn commit(core: &Core, conditions: Vec<Condition>, writes: Vec<Write>) -> Result<bool, ApiStatus> {
    match core.store.commit(Transaction { conditions, writes, ..Transaction::default() }).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(store_error(error)),
    }
}

/// Records a port for a Service; `false` where that was done meanwhile, or the Service is another one by now.
async fn write(core: &Core, record: &Record, service: &Value, port: u16) -> Result<bool, ApiStatus> {
    let mut ledger = Ledger::of(core, object::key(service))?;
    if !ledger.take_over_port(port).await? {
        return Ok(false);
    }
    ledger.conditions.push(Condition { key: record.key.clone(), expect: Expect::Modified(record.modified) });
    commit(core, ledger.conditions, ledger.writes).await
}

/// Frees a port that nobody has, as long as the Service that is recorded does not take it meanwhile.
async fn free(core: &Core, port: u16, record: &Record, owner: Option<&Record>) -> Result<(), ApiStatus> {
    let owner = match owner {
        Some(owner) => Condition { key: owner.key.clone(), expect: Expect::Modified(owner.modified) },
        None => {
            let named = String::from_utf8_lossy(&record.value).into_owned();
            let (namespace, name) = named.split_once('/').unwrap_or_default();
            Condition { key: Key::new(services().key(namespace, name)), expect: Expect::Absent }
        }
    };
    let own = Condition { key: record.key.clone(), expect: Expect::Modified(record.modified) };
    if commit(core, vec![own, owner], vec![Write::Delete { key: record.key.clone() }]).await? {
        core.metrics.port_repairs.found("leak");
        tracing::warn!(port, "a node port was recorded that no Service has; it is free again");
    }
    Ok(())
}

async fn tell(core: &Arc<Core>, service: &Value, finding: Finding) {
    let key = object::key(service);
    tracing::warn!(%key, reason = finding.0, text = finding.2, "a node port of a Service was not as it should be");
    warn(core, SOURCE, ("v1", "Service"), service, finding).await;
}

fn services() -> &'static Kind {
    kedge_kinds::builtin_by_resource("", "v1", "services").expect("it is built in")
}
