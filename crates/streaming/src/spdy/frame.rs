//! SPDY frames and stream headers, as values.
//!
//! Pure; their bytes are made in `codec.rs`.

use bytes::Bytes;

/// Status codes of RST_STREAM that are told apart here.
pub(crate) mod reset {
    /// The stream's id or order was wrong.
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    /// The stream will not be served.
    pub(crate) const REFUSED_STREAM: u32 = 3;
    /// The creator wants it no longer.
    pub(crate) const CANCEL: u32 = 5;
}

/// The setting that gives the send window of new streams.
pub(crate) const SETTING_INITIAL_WINDOW: u32 = 7;

/// The headers of a stream: lower-case names, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one header more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    /// The first value of this name, in whatever case it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// One frame, or a piece of a data frame: the decoder hands out long ones as they come, with `fin` on the last piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    SynStream { id: u32, fin: bool, headers: Headers },
    SynReply { id: u32, fin: bool, headers: Headers },
    RstStream { id: u32, status: u32 },
    Settings { entries: Vec<(u32, u32)> },
    Ping { id: u32 },
    GoAway { last_good: u32, status: u32 },
    Headers { id: u32, fin: bool, headers: Headers },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, fin: bool, bytes: Bytes },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_have_no_case() {
        let headers = Headers::new().with("streamType", "error").with("port", "80");
        assert_eq!(headers.get("streamtype"), Some("error"));
        assert_eq!(headers.get("StreamType"), Some("error"));
        assert_eq!(headers.get("requestID"), None);
        assert_eq!(headers.iter().next(), Some(("streamtype", "error")));
    }
}
