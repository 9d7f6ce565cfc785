//! The repair of IPAddresses: one that somebody deleted under a living Service is written again, and one that no Service
//! has goes.
//!
//! Services and records change in one commit (`admission/service_ledger.rs`), so that this mends only what people or other
//! programs did to the records. Invariant: nothing is written for a Service that has changed meanwhile.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use kedge_kinds::Kind;
use kedge_meta::{ApiStatus, ObjectKey};
use kedge_store::{Change, ChangeKind, CommitError, Condition, Expect, ListRequest, Record, Transaction, Watch};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admission::{known_ranges, missing_records};
use crate::cidr::Cidr;
use crate::core::{Core, decode};
use crate::object;
use crate::own_request::{Finding, send, warn};
use crate::reply::store_error;

mod plan;

use plan::Plan;

/// How often everything is looked at, as upstream's loop does.
const ROUND: Duration = Duration::from_secs(180);
/// How long to wait where the store does not answer.
const PAUSE: Duration = Duration::from_secs(1);
const SOURCE: &str = "ipallocator-repair-controller";
const RECORDS: (&str, &str) = ("networking.k8s.io", "ipaddresses");

/// Runs until it is aborted.
pub(crate) async fn keep_up(core: Arc<Core>) {
    let mut repair = Repair { core, told: HashSet::new(), due: BTreeSet::new() };
    loop {
        // From before the look, so that nothing falls between.
        let watch = repair.core.store.watch(&builtin(RECORDS).prefix(""), repair.core.store.revision());
        let result = match (repair.everything().await, watch) {
            (Ok(()), Ok(mut watch)) => repair.follow(&mut *watch).await,
            (Err(status), _) => Err(status),
            (_, Err(error)) => Err(store_error(error)),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "the records of addresses could not be looked at");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn builtin((group, resource): (&str, &str)) -> &'static Kind {
    kedge_kinds::builtin_by_resource(group, "v1", resource).expect("it is built in")
}

struct Repair {
    core: Arc<Core>,
    /// What stays as it is until people do something: said once.
    told: HashSet<(String, String)>,
    /// Records that are too young to be judged.
    due: BTreeSet<(Instant, String)>,
}

impl Repair {
    async fn everything(&mut self) -> Result<(), ApiStatus> {
        let ranges = known_ranges(&self.core).await?;
        for record in self.list(("", "services")).await? {
            self.mend_service(&record, &ranges).await?;
        }
        for record in self.list(RECORDS).await? {
            self.mend_record(&record).await?;
        }
        Ok(())
    }

    async fn list(&self, what: (&str, &str)) -> Result<Vec<Record>, ApiStatus> {
        let request = ListRequest { prefix: builtin(what).prefix(""), ..ListRequest::default() };
        Ok(self.core.store.list(request).await.map_err(store_error)?.records)
    }

    /// Looks at what changes until the next round.
    async fn follow(&mut self, watch: &mut dyn Watch) -> Result<(), ApiStatus> {
        let end = Instant::now() + ROUND;
        loop {
            let next = self.due.first().map_or(end, |(at, _)| end.min(*at));
            tokio::select! {
                changes = watch.next(100) => {
                    // One that fell behind begins anew with everything.
                    let Ok(changes) = changes else { return Ok(()) };
                    for change in changes {
                        self.look_at(&change).await?;
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    if next == end {
                        return Ok(());
                    }
                    if let Some((_, name)) = self.due.pop_first()
                        && let Some((record, _)) = self.core.object(RECORDS.0, RECORDS.1, "", &name).await?
                    {
                        self.mend_record(&record).await?;
                    }
                }
            }
        }
    }

    /// The Services that a record named or names, and the record. A new one comes with its Service.
    async fn look_at(&mut self, change: &Change) -> Result<(), ApiStatus> {
        let ranges = known_ranges(&self.core).await?;
        let changed = change.previous.iter().chain([&change.record]).filter(|_| change.kind != ChangeKind::Created);
        for record in changed {
            let object = decode(record)?;
            if let Some((namespace, name)) = plan::parent(&object)
                && let Some((service, _)) = self.core.object("", "services", namespace, name).await?
            {
                self.mend_service(&service, &ranges).await?;
            }
        }
        let name = object::name(&decode(&change.record)?).to_owned();
        match self.core.object(RECORDS.0, RECORDS.1, "", &name).await? {
            Some((record, _)) => self.mend_record(&record).await,
            None => Ok(()),
        }
    }

    async fn mend_service(&mut self, record: &Record, ranges: &[Cidr]) -> Result<(), ApiStatus> {
        let service = decode(record)?;
        for address in plan::addresses(&service) {
            let is_in_range = ranges.iter().any(|range| range.contains(address));
            self.mend_address(record, &service, address, is_in_range).await?;
        }
        Ok(())
    }

    async fn mend_address(
        &mut self,
        record: &Record,
        service: &Value,
        address: IpAddr,
        is_in_range: bool,
    ) -> Result<(), ApiStatus> {
        let found = self.core.object(RECORDS.0, RECORDS.1, "", &address.to_string()).await?.map(|(_, found)| found);
        let named = self.named(found.as_ref()).await?;
        match plan::plan_held(service, address, is_in_range, found.as_ref(), named.as_ref()) {
            Plan::Tell(finding) => {
                let mark = (object::meta(service, "uid").to_owned(), finding.2.clone());
                if self.told.insert(mark) {
                    self.tell("v1", "Service", service, finding).await;
                }
            }
            Plan::Write(finding) => {
                if let Some(found) = &found
                    && !self.delete(found).await
                {
                    return Ok(());
                }
                if self.write(record, service).await?
                    && let Some(finding) = finding
                {
                    self.tell("v1", "Service", service, finding).await;
                }
            }
            Plan::Keep | Plan::Wait(_) | Plan::Delete(_) => {}
        }
        Ok(())
    }

    async fn mend_record(&mut self, record: &Record) -> Result<(), ApiStatus> {
        let found = decode(record)?;
        let named = self.named(Some(&found)).await?;
        match plan::plan_record(&found, named.as_ref(), self.core.clock.now()) {
            Plan::Delete(finding) => {
                if self.delete(&found).await {
                    self.tell("networking.k8s.io/v1", "IPAddress", &found, finding).await;
                }
            }
            Plan::Wait(left) => {
                self.due.insert((Instant::now() + left, object::name(&found).to_owned()));
            }
            Plan::Keep | Plan::Tell(_) | Plan::Write(_) => {}
        }
        Ok(())
    }

    /// The Service that a record names, where there is one.
    async fn named(&self, record: Option<&Value>) -> Result<Option<Value>, ApiStatus> {
        let Some((namespace, name)) = record.and_then(plan::parent) else { return Ok(None) };
        Ok(self.core.object("", "services", namespace, name).await?.map(|(_, service)| service))
    }

    /// Deletes a record as it was seen; `false` where it is another one by now.
    async fn delete(&self, record: &Value) -> bool {
        let seen =
            json!({"uid": object::meta(record, "uid"), "resourceVersion": object::meta(record, "resourceVersion")});
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": seen});
        let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", object::name(record));
        let status = send(&self.core, Method::DELETE, &path, "application/json", &options).await;
        status.is_success() || status == StatusCode::NOT_FOUND
    }

    /// Writes what a Service lacks; `false` where it is another one by now, or somebody else was faster.
    async fn write(&self, record: &Record, service: &Value) -> Result<bool, ApiStatus> {
        let (mut conditions, writes) = missing_records(&self.core, service).await?;
        if writes.is_empty() {
            return Ok(false);
        }
        conditions.push(Condition { key: record.key.clone(), expect: Expect::Modified(record.modified) });
        match self.core.store.commit(Transaction { conditions, writes, ..Transaction::default() }).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(store_error(error)),
        }
    }

    async fn tell(&self, api_version: &str, kind: &str, about: &Value, finding: Finding) {
        let key: ObjectKey = object::key(about);
        tracing::warn!(kind, %key, reason = finding.0, text = finding.2, "an address of a Service was not as it should be");
        warn(&self.core, SOURCE, (api_version, kind), about, finding).await;
    }
}
