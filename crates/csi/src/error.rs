//! A failed call, told as the Go gRPC client tells it, because the text ends up in events.
//!
//! Invariant: a refusal prints as `rpc error: code = <Code> desc = <text>`.

use tonic::{Code, Status};

/// A failed call of a driver or a plug-in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", code_name(*.code))]
pub struct CsiError {
    /// The gRPC code.
    pub code: Code,
    /// The driver's words.
    pub message: String,
}

impl CsiError {
    pub(crate) fn from_status(endpoint: &str, status: &Status) -> Self {
        match dial_error(status) {
            Some(cause) => Self {
                code: Code::Unavailable,
                message: format!(
                    "connection error: desc = \"transport: Error while dialing: dial unix {endpoint}: connect: {}\"",
                    reason(&cause)
                ),
            },
            None => Self { code: status.code(), message: status.message().to_owned() },
        }
    }

    pub(crate) fn deadline() -> Self {
        Self { code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }
    }

    /// Whether the driver has certainly ended what it was asked for. After the other codes it may still be at it.
    pub fn is_final(&self) -> bool {
        !matches!(
            self.code,
            Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
        )
    }

    /// The driver does not know the volume, or does not have the call.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

/// What kept a transport from connecting.
fn dial_error(status: &Status) -> Option<std::io::ErrorKind> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

fn reason(kind: &std::io::ErrorKind) -> String {
    match kind {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        other => other.to_string(),
    }
}

/// Go's spelling of a code.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_upstream_prints_them() {
        let check = |status: Status, expected: &str, last: bool| {
            let error = CsiError::from_status("/x.sock", &status);
            assert_eq!((error.to_string().as_str(), error.is_final()), (expected, last));
        };
        check(Status::not_found("no volume"), "rpc error: code = NotFound desc = no volume", true);
        check(Status::cancelled("gone"), "rpc error: code = Canceled desc = gone", false);
        check(
            Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))),
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: \
             dial unix /x.sock: connect: connection refused\"",
            false,
        );
    }
}
