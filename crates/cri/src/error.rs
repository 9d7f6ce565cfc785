//! What can go wrong in a CRI call, told as the Go gRPC client tells it.
//!
//! The texts end up in pod statuses and events that people and tools search for, so the invariant is: an `Rpc` error
//! prints exactly as upstream prints it, `rpc error: code = <Code> desc = <text>`.

use std::error::Error as _;
use std::io;

use tonic::{Code, Status};

/// A failed CRI call or connection.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The endpoint is neither `unix://` and a path nor an absolute path.
    #[error("the container runtime endpoint {endpoint:?} is not a unix socket: give unix:///path or /path")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Something answers at the endpoint, but not CRI v1.
    #[error("the runtime at {endpoint} does not serve CRI v1: {message}; enable its CRI plugin or use a newer one")]
    NotV1 {
        /// The socket that was asked.
        endpoint: String,
        /// What it said.
        message: String,
    },
    /// The runtime refused or failed a call, or could not be reached.
    #[error("rpc error: code = {} desc = {message}", code_name(*.code))]
    Rpc {
        /// The CRI method, such as `RunPodSandbox`.
        call: &'static str,
        /// The gRPC code.
        code: Code,
        /// The runtime's own text.
        message: String,
    },
}

impl CriError {
    pub(crate) fn from_status(call: &'static str, endpoint: &str, status: &Status) -> Self {
        match dial_error(status) {
            Some(cause) => Self::Rpc { call, code: Code::Unavailable, message: dial_text(endpoint, cause) },
            None => Self::Rpc { call, code: status.code(), message: status.message().to_owned() },
        }
    }

    pub(crate) fn deadline(call: &'static str) -> Self {
        Self::Rpc { call, code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }
    }

    /// The gRPC code; `InvalidArgument` and `Unimplemented` stand for the two errors that are not from a call.
    pub fn code(&self) -> Code {
        match self {
            Self::Endpoint { .. } => Code::InvalidArgument,
            Self::NotV1 { .. } => Code::Unimplemented,
            Self::Rpc { code, .. } => *code,
        }
    }

    /// The runtime's own text, without the `rpc error:` frame.
    pub fn message(&self) -> &str {
        match self {
            Self::Endpoint { endpoint } => endpoint,
            Self::NotV1 { message, .. } | Self::Rpc { message, .. } => message,
        }
    }

    /// The sandbox, container or image is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The runtime could not be reached.
    pub fn is_unavailable(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// The call took longer than its deadline, here or in the runtime.
    pub fn is_deadline_exceeded(&self) -> bool {
        self.code() == Code::DeadlineExceeded
    }
}

/// The I/O error below a transport failure, if the status is one.
fn dial_error(status: &Status) -> Option<&io::Error> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        source = error.source();
    }
    None
}

fn dial_text(endpoint: &str, cause: &io::Error) -> String {
    let path = endpoint.trim_start_matches("unix://");
    let reason = match cause.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => cause.to_string(),
    };
    format!("connection error: desc = \"transport: Error while dialing: dial unix {path}: connect: {reason}\"")
}

/// Go's spelling of a gRPC code, which differs from Rust's in one `l` and in `OK`.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_upstream_prints_them() {
        let check = |code: Code, text: &str, expected: &str| {
            let error = CriError::from_status("ContainerStatus", "unix:///x.sock", &Status::new(code, text));
            assert_eq!(error.to_string(), expected);
        };
        check(Code::NotFound, "no such container", "rpc error: code = NotFound desc = no such container");
        check(Code::Cancelled, "gone", "rpc error: code = Canceled desc = gone");
        check(Code::Unknown, "failed to pull", "rpc error: code = Unknown desc = failed to pull");
    }

    #[test]
    fn a_missing_socket_reads_like_a_failed_dial() {
        let status = Status::from_error(Box::new(io::Error::from(io::ErrorKind::NotFound)));
        let error = CriError::from_status("Version", "unix:///run/x.sock", &status);
        assert_eq!(
            error.to_string(),
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: \
             dial unix /run/x.sock: connect: no such file or directory\""
        );
    }
}
