//! What keeps a client from the API server, told apart by how it is mended.
//!
//! Pure. It logs nothing; `failure_log.rs` decides what is worth a line. Invariant: the same failure always has the same
//! cause, whoever met it.

use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;

use kube::runtime::watcher;

/// What kind of failure keeps a client from the API server; each is mended differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// Nothing listens there: the API server is not running, or the port is wrong.
    ConnectionRefused,
    /// The connection was cut while it was used: the API server ended, or something between dropped it.
    ConnectionReset,
    /// The name does not resolve.
    NoSuchHost,
    /// There is no way to the address.
    Unreachable,
    /// The certificate or the protocol is wrong.
    Tls,
    /// No answer in time.
    Timeout,
    /// The server does not know who asks (401).
    Unauthorized,
    /// The server knows who asks, and that they may not (403).
    Forbidden,
    /// The server answered with another error.
    Status(u16),
    /// Anything else.
    Other,
}

impl FailureCause {
    /// Whether no request gets through, whatever it asks for.
    pub fn is_about_the_server(self) -> bool {
        match self {
            Self::ConnectionRefused
            | Self::ConnectionReset
            | Self::NoSuchHost
            | Self::Unreachable
            | Self::Tls
            | Self::Timeout
            | Self::Unauthorized => true,
            Self::Forbidden | Self::Status(_) | Self::Other => false,
        }
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused => formatter.write_str("connection refused"),
            Self::ConnectionReset => formatter.write_str("connection reset"),
            Self::NoSuchHost => formatter.write_str("no such host"),
            Self::Unreachable => formatter.write_str("no route to host"),
            Self::Tls => formatter.write_str("TLS"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Unauthorized => formatter.write_str("unauthorized"),
            Self::Forbidden => formatter.write_str("forbidden"),
            Self::Status(code) => write!(formatter, "status {code}"),
            Self::Other => formatter.write_str("other"),
        }
    }
}

/// Finds the cause in the chain of an error.
pub fn classify(error: &kube::Error) -> FailureCause {
    match error {
        kube::Error::Api(status) => of_status(status.code),
        _ => of_chain(error),
    }
}

/// The cause that a status code of the API server stands for.
pub(crate) fn of_status(code: u16) -> FailureCause {
    match code {
        401 => FailureCause::Unauthorized,
        403 => FailureCause::Forbidden,
        code => FailureCause::Status(code),
    }
}

fn of_chain(error: &(dyn StdError + 'static)) -> FailureCause {
    let cause = |link: &(dyn StdError + 'static)| {
        let kind = link.downcast_ref::<std::io::Error>().and_then(|error| of_kind(error.kind()));
        kind.or_else(|| of_text(&link.to_string()))
    };
    links(error).find_map(cause).unwrap_or(FailureCause::Other)
}

/// Whether a watch ended because nothing came for longer than its client waits: nothing needed to happen, and upstream's
/// server sends no bookmarks of a kind that it has seen no change of. Whether the server is there shows when the watch is
/// begun again.
pub fn is_silence(error: &watcher::Error) -> bool {
    let watcher::Error::WatchFailed(error) = error else { return false };
    links(error).filter_map(|link| link.downcast_ref::<std::io::Error>()).any(|link| link.kind() == ErrorKind::TimedOut)
}

/// An error and what caused it. An error of I/O that wraps another names that one's source as its own, and so would pass
/// it over.
fn links<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |current| {
        let current: &'a (dyn StdError + 'static) = *current;
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| current.source())
    })
}

fn of_kind(kind: ErrorKind) -> Option<FailureCause> {
    match kind {
        ErrorKind::ConnectionRefused => Some(FailureCause::ConnectionRefused),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => Some(FailureCause::ConnectionReset),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Some(FailureCause::Unreachable)
        }
        ErrorKind::TimedOut => Some(FailureCause::Timeout),
        _ => None,
    }
}

/// What only texts tell: the resolver's, the TLS library's and the timer's errors have no kind.
fn of_text(text: &str) -> Option<FailureCause> {
    const TEXTS: [(&str, FailureCause); 14] = [
        ("lookup address", FailureCause::NoSuchHost),
        ("Name or service not known", FailureCause::NoSuchHost),
        ("no such host", FailureCause::NoSuchHost),
        ("certificate", FailureCause::Tls),
        ("received fatal alert", FailureCause::Tls),
        ("received corrupt message", FailureCause::Tls),
        ("peer is incompatible", FailureCause::Tls),
        ("peer misbehaved", FailureCause::Tls),
        ("rustls", FailureCause::Tls),
        ("timed out", FailureCause::Timeout),
        ("deadline has elapsed", FailureCause::Timeout),
        ("connection closed before message completed", FailureCause::ConnectionReset),
        ("unexpected end of file", FailureCause::ConnectionReset),
        ("error reading a body from connection", FailureCause::ConnectionReset),
    ];
    TEXTS.iter().find(|(part, _)| text.contains(part)).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: ErrorKind, text: &str) -> kube::Error {
        kube::Error::Service(Box::new(std::io::Error::new(kind, text.to_owned())))
    }

    /// As the TLS library hands on what ends a handshake.
    fn wrapped(kind: ErrorKind, text: &str) -> kube::Error {
        kube::Error::Service(Box::new(std::io::Error::other(std::io::Error::new(kind, text.to_owned()))))
    }

    #[test]
    fn failures_are_told_apart() {
        let status = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            kube::Error::Api(Box::new(status))
        };
        let resolver = "failed to lookup address information: Name or service not known";
        let dead = "read timed out";
        for (error, expected) in [
            (io(ErrorKind::ConnectionRefused, "refused"), "connection refused"),
            (io(ErrorKind::ConnectionReset, "reset"), "connection reset"),
            (io(ErrorKind::UnexpectedEof, "eof"), "connection reset"),
            (io(ErrorKind::NetworkUnreachable, "unreachable"), "no route to host"),
            (io(ErrorKind::HostUnreachable, "unreachable"), "no route to host"),
            (io(ErrorKind::TimedOut, "slow"), "timeout"),
            (io(ErrorKind::Other, dead), "timeout"),
            (io(ErrorKind::Other, resolver), "no such host"),
            (io(ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"), "TLS"),
            (io(ErrorKind::InvalidData, "received corrupt message of type InvalidContentType"), "TLS"),
            (io(ErrorKind::InvalidData, "received fatal alert: BadCertificate"), "TLS"),
            (io(ErrorKind::Other, "something else"), "other"),
            (wrapped(ErrorKind::UnexpectedEof, "tls handshake eof"), "connection reset"),
            (wrapped(ErrorKind::ConnectionRefused, "refused"), "connection refused"),
            (status(401), "unauthorized"),
            (status(403), "forbidden"),
            (status(503), "status 503"),
        ] {
            assert_eq!(classify(&error).to_string(), expected, "{error}");
        }
    }

    #[test]
    fn silence_of_a_watch_is_no_failure() {
        // As the HTTP client hands on that it has waited for too long.
        let waited = || kube::Error::ReadEvents(std::io::Error::other(std::io::Error::from(ErrorKind::TimedOut)));
        assert!(is_silence(&watcher::Error::WatchFailed(waited())));
        assert!(!is_silence(&watcher::Error::WatchStartFailed(waited())));
        let cut = kube::Error::ReadEvents(std::io::Error::from(ErrorKind::ConnectionReset));
        assert!(!is_silence(&watcher::Error::WatchFailed(cut)));
    }

    #[test]
    fn only_some_causes_concern_every_request() {
        assert!(FailureCause::ConnectionRefused.is_about_the_server());
        assert!(FailureCause::Unauthorized.is_about_the_server());
        assert!(!FailureCause::Forbidden.is_about_the_server());
        assert!(!FailureCause::Status(404).is_about_the_server());
    }
}
