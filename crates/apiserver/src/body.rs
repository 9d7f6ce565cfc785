//! Response bodies: bytes, lists made of stored bytes, and streams.
//!
//! Invariant: a list's records are never joined into one buffer; they leave in chunks of about [`CHUNK`] bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};

/// What goes wrong while a body is produced or read.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// About how much of a list is written at once.
const CHUNK: usize = 64 << 10;

/// After so many bytes others get their turn.
const TURN: usize = 64 << 10;

/// Bodies above this take their time to leave.
const LARGE: usize = 64 << 10;

/// A response body.
pub struct Body {
    kind: Kind,
    /// Bytes since others had their turn.
    turn: usize,
    /// Dropped when the last bytes have left.
    kept: Option<Box<dyn Send + Sync>>,
}

enum Kind {
    Once(Option<Bytes>),
    Pieces { pieces: VecDeque<Bytes>, left: usize },
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::of(Kind::Once(None))
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Kind::Once(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty())))
    }

    /// These pieces, one after the other.
    pub(crate) fn pieces(pieces: impl Into<VecDeque<Bytes>>) -> Self {
        let pieces = pieces.into();
        let left = pieces.iter().map(Bytes::len).sum();
        Self::of(Kind::Pieces { pieces, left })
    }

    /// What a stream yields.
    pub(crate) fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self::of(Kind::Stream(Box::pin(stream)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, turn: 0, kept: None }
    }

    /// Keeps something until the last bytes have left, with what is kept already.
    pub(crate) fn keep(&mut self, kept: Box<dyn Send + Sync>) {
        self.kept = Some(match self.kept.take() {
            Some(before) => Box::new((before, kept)),
            None => kept,
        });
    }

    /// The bytes that will leave, unless it is a stream.
    pub(crate) fn snapshot(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Once(bytes) => Some(bytes.clone().unwrap_or_default()),
            Kind::Pieces { pieces, left } => {
                let mut joined = BytesMut::with_capacity(*left);
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                Some(joined.freeze())
            }
            Kind::Stream(_) => None,
        }
    }

    /// Whether it takes its time to leave.
    pub(crate) fn is_large(&self) -> bool {
        self.length().is_none_or(|length| length > LARGE)
    }

    /// How many bytes there are, where that is known.
    pub(crate) fn length(&self) -> Option<usize> {
        match &self.kind {
            Kind::Once(bytes) => Some(bytes.as_ref().map_or(0, Bytes::len)),
            Kind::Pieces { left, .. } => Some(*left),
            Kind::Stream(_) => None,
        }
    }

    /// The next bytes, for callers that transform the body.
    pub(crate) fn next_bytes(&mut self) -> Option<Bytes> {
        match &mut self.kind {
            Kind::Once(bytes) => bytes.take(),
            Kind::Pieces { pieces, left } => {
                let bytes = next_chunk(pieces)?;
                *left -= bytes.len();
                Some(bytes)
            }
            Kind::Stream(_) => None,
        }
    }
}

fn next_chunk(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = pieces.pop_front()?;
    let fits =
        |pieces: &VecDeque<Bytes>, length: usize| pieces.front().is_some_and(|piece| length + piece.len() <= CHUNK);
    if !fits(pieces, first.len()) {
        return Some(first);
    }
    let mut joined = BytesMut::with_capacity(CHUNK);
    joined.extend_from_slice(&first);
    while fits(pieces, joined.len()) {
        let piece = pieces.pop_front().expect("it was there a moment ago");
        joined.extend_from_slice(&piece);
    }
    Some(joined.freeze())
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.turn >= TURN {
            // A list can be sent faster than anybody else is heard.
            this.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = match &mut this.kind {
            Kind::Stream(stream) => std::task::ready!(stream.as_mut().poll_next(context)),
            _ => this.next_bytes().map(Ok),
        };
        match &next {
            Some(Ok(bytes)) => this.turn += bytes.len(),
            _ => this.kept = None,
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, |length| SizeHint::with_exact(length as u64))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("length", &self.length()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_in_chunks_and_none_is_lost() {
        let pieces: Vec<Bytes> =
            (0..1000u32).map(|i| Bytes::from(vec![i as u8; 100 + (i as usize % 300) * 300])).collect();
        let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
        let mut body = Body::pieces(pieces);
        assert_eq!(body.length(), Some(whole.len()));
        let mut read = Vec::new();
        while let Some(chunk) = body.next_bytes() {
            assert!(!chunk.is_empty());
            read.extend_from_slice(&chunk);
        }
        assert_eq!((read, body.length()), (whole, Some(0)));
    }
}
