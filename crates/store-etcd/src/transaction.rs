//! A commit of the store as a transaction of etcd, and what its answer says. Pure.
//!
//! Invariant: the operations and the answer's parts are in one order, that of the conditions and of the writes.

use bytes::Bytes;
use kedge_store::{CommitError, Expect, Key, Record, Replayed, Revision, StoreError, Transaction, Write};

use crate::layout::{Layout, number, revision, write_value};
use crate::rpc::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp, Response,
    ResponseOp, Target, TxnRequest, TxnResponse,
};

/// etcd's own limit of operations, unless it was started with another one (`--max-txn-ops`).
const MOST_OPERATIONS: usize = 128;

/// A commit on its way.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    transaction: &'a Transaction,
    layout: &'a Layout,
    pub(crate) request: TxnRequest,
}

/// What etcd did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It went through.
    Done {
        /// At which revision; the present one where nothing changed.
        revision: Revision,
        /// The new records, in the order of the puts.
        records: Vec<Record>,
        /// What changed, for the copy in memory; empty where nothing did.
        changes: Vec<Replayed>,
    },
    /// A condition did not hold.
    Refused(CommitError),
}

impl<'a> Plan<'a> {
    /// `lease_of` gives the lease that a time to live was given.
    pub(crate) fn new(
        transaction: &'a Transaction,
        layout: &'a Layout,
        lease_of: impl Fn(std::time::Duration) -> i64,
    ) -> Result<Self, StoreError> {
        let (mut compare, mut success, mut failure) = (Vec::new(), Vec::new(), Vec::new());
        for condition in &transaction.conditions {
            let key = place(layout, &condition.key)?;
            compare.push(compare_of(condition.expect, key.clone()));
            failure.push(range(key, false));
        }
        for write in &transaction.writes {
            match write {
                Write::Put { key, value, ttl } => {
                    let lease = ttl.map_or(0, &lease_of);
                    let key = place(layout, key)?;
                    success.push(operation(Request::Put(PutRequest { key, value: write_value(value), lease })));
                }
                Write::Delete { key } => {
                    success.push(operation(Request::DeleteRange(DeleteRangeRequest { key: place(layout, key)? })));
                }
            }
        }
        // When a replaced key was created is asked after the writes.
        for key in transaction.writes.iter().filter_map(replaced(transaction)) {
            success.push(range(place(layout, key)?, true));
        }
        if compare.len().max(success.len()) > MOST_OPERATIONS {
            let why = format!("a commit of {} operations is more than etcd takes", compare.len().max(success.len()));
            return Err(StoreError::Storage(why));
        }
        Ok(Self { transaction, layout, request: TxnRequest { compare, success, failure } })
    }

    /// What the answer says.
    pub(crate) fn read(&self, answer: &TxnResponse) -> Result<Outcome, StoreError> {
        let at = revision(answer.header.as_ref().map_or(0, |header| header.revision));
        if !answer.succeeded {
            return self.refusal(answer).map(Outcome::Refused);
        }
        let mut created = answer.responses[self.transaction.writes.len().min(answer.responses.len())..].iter();
        let (mut records, mut changes) = (Vec::new(), Vec::new());
        for (write, response) in self.transaction.writes.iter().zip(&answer.responses) {
            match write {
                Write::Put { key, value, .. } => {
                    let created = match is_created(self.transaction, key) {
                        true => at,
                        false => created.next().and_then(first_created).ok_or_else(malformed)?,
                    };
                    let (value, splice_at) = (value.render(at), value.splice_at);
                    let record = Record { key: key.clone(), value, splice_at, created, modified: at };
                    changes.push(Replayed::Put { record: record.clone(), expires: None });
                    records.push(record);
                }
                Write::Delete { key } => {
                    if matches!(&response.response, Some(Response::DeleteRange(gone)) if gone.deleted > 0) {
                        changes.push(Replayed::Delete { key: key.clone(), revision: at });
                    }
                }
            }
        }
        Ok(Outcome::Done { revision: at, records, changes })
    }

    /// The first condition that does not hold, and what its key is.
    fn refusal(&self, answer: &TxnResponse) -> Result<CommitError, StoreError> {
        for (condition, response) in self.transaction.conditions.iter().zip(&answer.responses) {
            let Some(Response::Range(found)) = &response.response else { return Err(malformed()) };
            let current = found.kvs.first().and_then(|kv| self.layout.read(kv));
            let holds = match condition.expect {
                Expect::Absent => current.is_none(),
                Expect::Present => current.is_some(),
                Expect::Modified(revision) => current.as_ref().is_some_and(|record| record.modified == revision),
            };
            if !holds {
                return Ok(CommitError::Conflict { key: condition.key.clone(), current: current.map(Box::new) });
            }
        }
        Err(malformed())
    }
}

fn malformed() -> StoreError {
    StoreError::Storage("etcd's answer to a transaction does not fit it".to_owned())
}

fn place(layout: &Layout, key: &Key) -> Result<Bytes, StoreError> {
    layout.key_of(key).ok_or_else(|| StoreError::Storage(format!("the key {} has no place in etcd", key.as_str())))
}

fn compare_of(expect: Expect, key: Bytes) -> Compare {
    let (result, target, target_union) = match expect {
        Expect::Absent => (CompareResult::Equal, CompareTarget::Mod, Target::ModRevision(0)),
        Expect::Present => (CompareResult::Greater, CompareTarget::Create, Target::CreateRevision(0)),
        // Of an absent key etcd says zero, and this condition holds for none.
        Expect::Modified(Revision(0)) => (CompareResult::Equal, CompareTarget::Mod, Target::ModRevision(-1)),
        Expect::Modified(revision) => (CompareResult::Equal, CompareTarget::Mod, Target::ModRevision(number(revision))),
    };
    Compare { result: result as i32, target: target as i32, key, target_union: Some(target_union) }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn range(key: Bytes, keys_only: bool) -> RequestOp {
    operation(Request::Range(RangeRequest { key, keys_only, ..RangeRequest::default() }))
}

/// The key of a put that may replace something.
fn replaced(transaction: &Transaction) -> impl Fn(&Write) -> Option<&Key> {
    move |write| match write {
        Write::Put { key, .. } if !is_created(transaction, key) => Some(key),
        _ => None,
    }
}

/// Whether a key that is put was certainly absent.
fn is_created(transaction: &Transaction, key: &Key) -> bool {
    let mut conditions = transaction.conditions.iter();
    conditions.any(|condition| condition.expect == Expect::Absent && condition.key == *key)
}

fn first_created(response: &ResponseOp) -> Option<Revision> {
    match &response.response {
        Some(Response::Range(found)) => found.kvs.first().map(|kv| revision(kv.create_revision)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kedge_store::{Condition, Template};

    use super::*;
    use crate::rpc::{DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, ResponseHeader};

    fn put(key: &str) -> Write {
        let value = Template { bytes: Bytes::from_static(b"{}"), splice_at: Some(1) };
        Write::Put { key: Key::new(key), value, ttl: None }
    }

    fn answer(succeeded: bool, responses: Vec<Response>) -> TxnResponse {
        let header = Some(ResponseHeader { cluster_id: 1, revision: 9 });
        let responses = responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
        TxnResponse { header, succeeded, responses }
    }

    fn found(key: &'static str, created: i64, modified: i64) -> Response {
        let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"{}"));
        let kv = KeyValue { key, create_revision: created, mod_revision: modified, version: 1, value };
        Response::Range(RangeResponse { kvs: vec![kv], ..RangeResponse::default() })
    }

    #[test]
    fn each_write_and_each_replaced_key_is_an_operation() {
        let layout = Layout::new("", "/k");
        let absent = Condition { key: Key::new("/a"), expect: Expect::Absent };
        let writes = vec![put("/a"), Write::Delete { key: Key::new("/b") }, put("/c")];
        let transaction = Transaction { conditions: vec![absent], writes, ..Transaction::default() };
        let plan = Plan::new(&transaction, &layout, |_| 0).expect("it has a place");
        assert_eq!((plan.request.compare.len(), plan.request.failure.len(), plan.request.success.len()), (1, 1, 4));
        let deleted = Response::DeleteRange(DeleteRangeResponse { deleted: 1 });
        let done = vec![Response::Put(PutResponse {}), deleted, Response::Put(PutResponse {}), found("/k/c", 3, 9)];
        let Ok(Outcome::Done { revision, records, changes }) = plan.read(&answer(true, done)) else {
            panic!("it went through")
        };
        let shown: Vec<_> = records.iter().map(|record| (record.key.as_str(), record.created.0)).collect();
        assert_eq!((revision.0, shown, changes.len()), (9, vec![("/a", 9), ("/c", 3)], 3));
        assert_eq!(records[0].value, "{9}");
    }

    #[test]
    fn the_first_condition_that_does_not_hold_is_told() {
        let layout = Layout::new("", "");
        let conditions = vec![
            Condition { key: Key::new("/a"), expect: Expect::Modified(Revision(5)) },
            Condition { key: Key::new("/b"), expect: Expect::Absent },
        ];
        let transaction = Transaction { conditions, writes: vec![put("/c")], ..Transaction::default() };
        let plan = Plan::new(&transaction, &layout, |_| 0).expect("it has a place");
        let read = plan.read(&answer(false, vec![found("/a", 2, 5), found("/b", 3, 3)]));
        let Ok(Outcome::Refused(CommitError::Conflict { key, current })) = read else { panic!("it was refused") };
        assert_eq!((key.as_str(), current.map(|record| record.modified)), ("/b", Some(Revision(3))));
        assert!(plan.read(&answer(false, vec![])).is_err(), "a refusal names a reason");
    }

    #[test]
    fn what_etcd_would_not_take_is_refused_here() {
        let layout = Layout::new("", "");
        let many = (0..MOST_OPERATIONS).map(|at| put(&format!("/{at}"))).collect();
        let transaction = Transaction { writes: many, ..Transaction::default() };
        assert!(matches!(Plan::new(&transaction, &layout, |_| 0), Err(StoreError::Storage(_))));
    }
}
