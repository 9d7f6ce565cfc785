//! What can go wrong: the few reasons for which the whole component refuses to run, and the many for which one key is
//! tried again.

/// Why the controllers do not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--controllers` names a controller that does not exist.
    #[error("\"{name}\" is not in the list of known controllers")]
    UnknownController {
        /// The name.
        name: String,
    },
    /// A pod CIDR is no CIDR, or too small for a node's share.
    #[error("cannot hand out node CIDRs from \"{cidr}\": {why}")]
    ClusterCidr {
        /// The CIDR as it was given.
        cidr: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The leader election's durations contradict one another.
    #[error("cannot compete for the lease")]
    Leader(#[from] kedge_client::LeaderError),
}

/// Why one key was not reconciled; it is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API refused, or can't be reached.
    #[error("a request to the API server failed")]
    Api(#[from] kube::Error),
    /// The object can't be worked with as it is.
    #[error("{0}")]
    Object(String),
}

impl ReconcileError {
    /// Whether this is an ordinary race with another writer, which a retry with a fresher cache mends.
    pub(crate) fn is_race(&self) -> bool {
        matches!(self, ReconcileError::Api(error) if is_conflict(error) || is_not_found(error) || is_already_exists(error))
    }

    /// Why, in one line: what the API said, without the rest of its answer.
    pub(crate) fn brief(&self) -> String {
        match self {
            ReconcileError::Api(error) => message_of(error),
            ReconcileError::Object(why) => why.clone(),
        }
    }

    /// Whether the API server is the reason, and not the object.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            ReconcileError::Api(kube::Error::Api(status)) => status.code >= 500,
            ReconcileError::Api(_) => true,
            ReconcileError::Object(_) => false,
        }
    }
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether a creation was refused because its namespace is being deleted, which no retry mends.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    status.code == 403 && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The text of an error as upstream puts it into events: the API's own message where there is one.
pub(crate) fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Deleting what is gone is success.
pub(crate) fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
