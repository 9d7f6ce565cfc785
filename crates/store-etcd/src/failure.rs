//! Why a call of etcd failed, and what that means: whether it may have happened, and whether another member may be asked.
//!
//! Invariant: [`Failure::Unsent`] is said only where it is certain that nothing happened.

use std::error::Error as _;

use kedge_store::StoreError;
use tonic::{Code, Status};

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing happened: nobody was reached, or the member has no leader. Another one may do better.
    Unsent(String),
    /// Nobody knows whether it happened.
    Unclear(String),
    /// The lease that a write names is gone. Nothing happened.
    NoLease,
    /// The revision has been compacted.
    Compacted,
    /// The revision has not happened.
    Future,
    /// The database is full and takes no writes until somebody clears the alarm. Nothing happened.
    NoSpace,
    /// etcd refuses this call, whoever is asked. Nothing happened.
    Refused(String),
}

impl Failure {
    /// Out of what gRPC says.
    pub(crate) fn of(status: &Status) -> Self {
        let text = status.message();
        if is_unconnected(status) {
            return Self::Unsent(chain(status));
        }
        match status.code() {
            Code::Unavailable if text.contains("no leader") => Self::Unsent(text.to_owned()),
            Code::ResourceExhausted if text.contains("too many requests") => Self::Unsent(text.to_owned()),
            Code::ResourceExhausted if text.contains("space exceeded") => Self::NoSpace,
            Code::NotFound if text.contains("lease not found") => Self::NoLease,
            Code::OutOfRange if text.contains("compacted") => Self::Compacted,
            Code::OutOfRange if text.contains("future revision") => Self::Future,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused(text.to_owned()),
            _ => Self::Unclear(chain(status)),
        }
    }

    /// What the store's clients are told.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Self::Unsent(why) => StoreError::Unavailable(format!("no etcd server takes requests: {why}")),
            Self::Unclear(why) => StoreError::Timeout(format!("etcd: {why}")),
            Self::NoSpace => StoreError::Storage(
                "etcd's database is full (mvcc: database space exceeded, alarm NOSPACE), it takes no writes: compact and \
                 defragment it, then `etcdctl alarm disarm`"
                    .to_owned(),
            ),
            Self::NoLease => StoreError::Unavailable("etcd lost the lease of a key".to_owned()),
            Self::Compacted => StoreError::Storage("etcd has compacted what was asked for".to_owned()),
            Self::Future => StoreError::Storage("etcd is behind what it said before".to_owned()),
            Self::Refused(why) => StoreError::Storage(format!("etcd refuses a request: {why}")),
        }
    }
}

/// Whether a call ended before there was a connection to send it over.
fn is_unconnected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, each one once.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, text: &str, expected: &Failure) {
        assert_eq!(Failure::of(&Status::new(code, text)), *expected, "{code:?} {text}");
    }

    #[test]
    fn what_etcd_says_is_understood() {
        let unclear = |text: &str| Failure::Unclear(text.to_owned());
        let unsent = |text: &str| Failure::Unsent(text.to_owned());
        check(Code::Unavailable, "etcdserver: no leader", &unsent("etcdserver: no leader"));
        check(Code::Unavailable, "etcdserver: request timed out", &unclear("etcdserver: request timed out"));
        check(Code::Unavailable, "etcdserver: leader changed", &unclear("etcdserver: leader changed"));
        check(Code::ResourceExhausted, "etcdserver: too many requests", &unsent("etcdserver: too many requests"));
        check(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", &Failure::NoSpace);
        check(Code::NotFound, "etcdserver: requested lease not found", &Failure::NoLease);
        check(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", &Failure::Compacted);
        check(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", &Failure::Future);
        let large = "etcdserver: request is too large";
        check(Code::InvalidArgument, large, &Failure::Refused(large.to_owned()));
        check(Code::Unknown, "transport error", &unclear("transport error"));
        check(Code::Cancelled, "Timeout expired", &unclear("Timeout expired"));
    }
}
