//! The channels inside a WebSocket connection: which message belongs to which stream.
//!
//! Pure. Each message begins with the number of its channel, as a byte, or in base64 protocols as a digit. Invariant: a
//! message that makes no sense is told apart from one that may be ignored, as upstream ignores many.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The largest message that upstream's server reads.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
const BUFFER_BYTES: usize = 16 * 1024;

/// What a subprotocol means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelProtocol {
    /// Its name; none where the client offered none.
    pub(crate) name: Option<&'static str>,
    base64: bool,
    /// Whether a client can end a stream and keep the others.
    close_signal: bool,
    /// Whether the outcome is a `Status`, or text.
    pub(crate) structured: bool,
}

/// What a message from the client means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Data(u8, Bytes),
    /// The client ends a stream.
    End(u8),
    /// The client leaves.
    Leave,
    Nothing,
}

const fn protocol(name: &'static str, base64: bool, close_signal: bool, structured: bool) -> ChannelProtocol {
    ChannelProtocol { name: Some(name), base64, close_signal, structured }
}

const PROTOCOLS: [ChannelProtocol; 8] = [
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, false, true),
    protocol("v4.base64.channel.k8s.io", true, false, true),
    protocol("base64.v4.channel.k8s.io", true, false, true),
    protocol("v3.channel.k8s.io", false, false, false),
    protocol("v2.channel.k8s.io", false, false, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
];

impl ChannelProtocol {
    /// The first of the client's that is known; without any, the first version.
    pub(crate) fn choose(offered: &[&str]) -> Option<Self> {
        if offered.is_empty() {
            return Some(Self { name: None, base64: false, close_signal: false, structured: false });
        }
        offered.iter().find_map(|name| PROTOCOLS.into_iter().find(|known| known.name == Some(name)))
    }

    /// The names that are known.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        PROTOCOLS.into_iter().filter_map(|protocol| protocol.name)
    }

    pub(crate) fn read(self, message: Message) -> Incoming {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Incoming::Leave,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Incoming::Nothing,
        };
        let Some(first) = bytes.first().copied() else { return Incoming::Nothing };
        if self.close_signal && first == CLOSE {
            // Upstream gives the connection up on any other length.
            return if bytes.len() == 2 { Incoming::End(bytes[1]) } else { Incoming::Leave };
        }
        let data = bytes.slice(1..);
        if !self.base64 {
            return Incoming::Data(first, data);
        }
        match STANDARD.decode(&data) {
            Ok(data) => Incoming::Data(first.wrapping_sub(b'0'), data.into()),
            Err(_) => Incoming::Nothing,
        }
    }

    pub(crate) fn write(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let digit = char::from(b'0' + channel);
            return Message::text(format!("{digit}{}", STANDARD.encode(data)));
        }
        let mut bytes = BytesMut::with_capacity(1 + data.len());
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }
}

/// How our ends of WebSocket connections are set up: small buffers, upstream's largest message.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(names: &[&str]) -> ChannelProtocol {
        ChannelProtocol::choose(names).expect("a known protocol")
    }

    #[test]
    fn the_first_known_protocol_is_chosen() {
        let check = |offered: &[&str], expected: Option<&str>| {
            assert_eq!(ChannelProtocol::choose(offered).and_then(|protocol| protocol.name), expected, "{offered:?}");
        };
        check(&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some("v5.channel.k8s.io"));
        check(&["v9.channel.k8s.io", "v4.base64.channel.k8s.io"], Some("v4.base64.channel.k8s.io"));
        check(&["v9.channel.k8s.io"], None);
        assert!(ChannelProtocol::choose(&["v9.channel.k8s.io"]).is_none());
        assert!(ChannelProtocol::choose(&[]).is_some());
    }

    #[test]
    fn messages() {
        let check = |protocol: &str, message: &[u8], expected: Incoming| {
            let read = choose(&[protocol]).read(Message::binary(message.to_vec()));
            assert_eq!(read, expected, "{protocol} {message:?}");
        };
        check("v5.channel.k8s.io", b"\0hello", Incoming::Data(STDIN, Bytes::from_static(b"hello")));
        check("v5.channel.k8s.io", &[CLOSE, STDIN], Incoming::End(STDIN));
        check("v5.channel.k8s.io", &[CLOSE], Incoming::Leave);
        check("v4.channel.k8s.io", &[CLOSE, STDIN], Incoming::Data(255, Bytes::from_static(&[0])));
        check("v4.base64.channel.k8s.io", b"0aGVsbG8=", Incoming::Data(STDIN, Bytes::from_static(b"hello")));
        check("v4.base64.channel.k8s.io", b"0!", Incoming::Nothing);
        check("channel.k8s.io", b"", Incoming::Nothing);
    }

    #[test]
    fn answers() {
        assert_eq!(choose(&["v5.channel.k8s.io"]).write(STDOUT, b"hi"), Message::binary(b"\x01hi".to_vec()));
        assert_eq!(choose(&["base64.channel.k8s.io"]).write(STDOUT, b"hi"), Message::text("1aGk="));
    }
}
