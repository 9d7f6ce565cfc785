//! One SPDY stream: bytes both ways, each way closed on its own.
//!
//! Shutting the writing side down half-closes the stream, as Kubernetes needs for the end of stdin. Dropping a stream whose
//! writing side is open resets it. Invariant: the end of reading is an end only when the peer said so: a connection that was
//! lost is an error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::PollSender;

use crate::spdy::frame::{Frame, Headers, reset};
use crate::spdy::state::{Remote, Shared};

/// The most that one data frame carries.
const MAX_DATA_BYTES: usize = 32 * 1024;

/// What stands in the queue of a connection's writer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Frame),
    /// Write what is before this, then end the connection.
    Close,
}

/// A stream.
pub struct SpdyStream {
    id: u32,
    headers: Headers,
    shared: Arc<Shared>,
    queue: PollSender<Outgoing>,
}

impl SpdyStream {
    pub(crate) fn new(id: u32, headers: Headers, shared: Arc<Shared>, queue: PollSender<Outgoing>) -> Self {
        Self { id, headers, shared, queue }
    }

    /// Its number on the connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The headers it was opened with.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Whether the peer broke it off, rather than ending its side.
    pub fn is_reset(&self) -> bool {
        self.watch().is_reset()
    }

    /// Tells that also while the stream is borrowed.
    pub(crate) fn watch(&self) -> StreamWatch {
        StreamWatch { id: self.id, shared: self.shared.clone() }
    }

    /// Breaks it off both ways.
    pub fn reset(self) {
        drop(self);
    }

    pub(crate) fn refuse(self) {
        self.end_with(reset::REFUSED_STREAM);
    }

    pub(crate) async fn send(&mut self, frame: Frame) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_queue(context)).await?;
        self.queue.send_item(Outgoing::Frame(frame)).map_err(|_| broken())
    }

    fn poll_queue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_reserve(context).map_err(|_| broken())
    }

    fn end_with(&self, status: u32) {
        let mut state = self.shared.state.lock();
        let Some(entry) = state.streams.remove(&self.id) else { return };
        // A stream that was ended properly is left to the peer to end: a reset could overtake what it has not read yet.
        if entry.is_writable() {
            state.resets.push((self.id, status));
            self.shared.work.notify_one();
        }
        self.shared.space.notify_one();
    }
}

/// Looks at a stream without keeping it.
pub(crate) struct StreamWatch {
    id: u32,
    shared: Arc<Shared>,
}

impl StreamWatch {
    /// Whether the peer broke the stream off, or the connection ended, or the stream is gone.
    pub(crate) fn is_reset(&self) -> bool {
        let state = self.shared.state.lock();
        state.streams.get(&self.id).is_none_or(|entry| matches!(entry.remote, Remote::Reset(_) | Remote::Lost))
    }
}

impl Drop for SpdyStream {
    fn drop(&mut self) {
        self.end_with(reset::CANCEL);
    }
}

impl std::fmt::Debug for SpdyStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SpdyStream").field("id", &self.id).field("headers", &self.headers).finish()
    }
}

impl AsyncRead for SpdyStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.state.lock();
        let (taken, report) = state.take(self.id, buffer);
        if taken > 0 {
            self.shared.space.notify_one();
            if report {
                self.shared.work.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        let Some(entry) = state.streams.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        match entry.remote {
            Remote::Open => {
                entry.reader = Some(context.waker().clone());
                Poll::Pending
            }
            // Upstream's servers end their streams by cancelling them, so that this is no error.
            Remote::Finished | Remote::Reset(reset::CANCEL) => Poll::Ready(Ok(())),
            Remote::Reset(status) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                format!("the peer reset the stream with status {status}"),
            ))),
            Remote::Lost => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the stream did",
            ))),
        }
    }
}

impl AsyncWrite for SpdyStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_queue(context))?;
        let mut state = this.shared.state.lock();
        let length = bytes.len().min(MAX_DATA_BYTES).min(state.send_allowance(this.id));
        let Some(entry) = state.streams.get_mut(&this.id).filter(|entry| entry.is_writable()) else {
            this.queue.abort_send();
            return Poll::Ready(Err(broken()));
        };
        if length == 0 {
            entry.writer = Some(context.waker().clone());
            // The place in the queue is given back: others may write meanwhile.
            this.queue.abort_send();
            return Poll::Pending;
        }
        state.sent(this.id, length);
        drop(state);
        let bytes = Bytes::copy_from_slice(&bytes[..length]);
        let frame = Frame::Data { id: this.id, fin: false, bytes };
        this.queue.send_item(Outgoing::Frame(frame)).map_err(|_| broken())?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's writer flushes whenever its queue is empty.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let writable =
            |this: &Self| this.shared.state.lock().streams.get(&this.id).is_some_and(super::state::Entry::is_writable);
        if !writable(this) {
            return Poll::Ready(Ok(()));
        }
        if ready!(this.poll_queue(context)).is_err() {
            return Poll::Ready(Ok(()));
        }
        if let Some(entry) = this.shared.state.lock().streams.get_mut(&this.id) {
            entry.local_closed = true;
        }
        let frame = Frame::Data { id: this.id, fin: true, bytes: Bytes::new() };
        // The connection is over: then both sides know that the stream is.
        let _ = this.queue.send_item(Outgoing::Frame(frame));
        Poll::Ready(Ok(()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the stream is closed")
}
