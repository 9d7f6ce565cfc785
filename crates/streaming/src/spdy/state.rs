//! What a SPDY connection knows of its streams, shared by its two tasks and its streams.
//!
//! No I/O and no waiting happens here. Invariant: an entry lives exactly as long as its `SpdyStream`, and whoever waits on
//! something that changed is woken by the change itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::spdy::frame::{Frame, SETTING_INITIAL_WINDOW};

/// The window both sides start with.
pub(crate) const INITIAL_WINDOW: i64 = 64 * 1024;
/// How much may be read before the peer is told of it.
const WINDOW_UPDATE_AFTER: u32 = 32 * 1024;
/// What a stream may hold unread before the whole connection waits for its reader.
pub(crate) const INBOX_BYTES: usize = 256 * 1024;
/// Streams on one connection; kubectl uses two for each forwarded connection.
pub(crate) const MAX_STREAMS: usize = 1024;

/// How the peer's half of a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Open,
    Finished,
    Reset(u32),
    /// The connection ended first.
    Lost,
}

/// One stream.
pub(crate) struct Entry {
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    pub(crate) remote: Remote,
    pub(crate) local_closed: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) reply: Option<oneshot::Sender<bool>>,
    send_window: i64,
    unreported: u32,
}

pub(crate) struct State {
    pub(crate) streams: HashMap<u32, Entry>,
    pub(crate) next_id: u32,
    pub(crate) last_received: u32,
    pub(crate) going_away: bool,
    pub(crate) resets: Vec<(u32, u32)>,
    pub(crate) pings: HashMap<u32, oneshot::Sender<()>>,
    pub(crate) next_ping: u32,
    flow_control: bool,
    initial_window: i64,
    session_window: i64,
    session_unreported: u32,
}

/// The state and the bells that ring when it changes.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// A reader made room, or went away.
    pub(crate) space: Notify,
    /// There is something to write that nobody put into the queue.
    pub(crate) work: Notify,
    /// The connection is over.
    pub(crate) closed: CancellationToken,
}

impl Shared {
    /// A client opens odd streams and pings, a server even ones.
    pub(crate) fn new(client: bool, flow_control: bool) -> Arc<Self> {
        let first = if client { 1 } else { 2 };
        let state = State {
            streams: HashMap::new(),
            next_id: first,
            last_received: 0,
            going_away: false,
            resets: Vec::new(),
            pings: HashMap::new(),
            next_ping: first,
            flow_control,
            initial_window: INITIAL_WINDOW,
            session_window: INITIAL_WINDOW,
            session_unreported: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            space: Notify::new(),
            work: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Ends everything: nobody waits any longer.
    pub(crate) fn end(&self) {
        self.closed.cancel();
        let mut state = self.state.lock();
        state.going_away = true;
        state.pings.clear();
        for entry in state.streams.values_mut() {
            if entry.remote == Remote::Open {
                entry.remote = Remote::Lost;
            }
            entry.wake();
            entry.reply = None;
        }
        self.space.notify_one();
    }
}

impl Entry {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// Whether writing makes sense.
    pub(crate) fn is_writable(&self) -> bool {
        !self.local_closed && !matches!(self.remote, Remote::Reset(_) | Remote::Lost)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.inbox_bytes > INBOX_BYTES
    }

    pub(crate) fn finish(&mut self) {
        if self.remote == Remote::Open {
            self.remote = Remote::Finished;
        }
        self.wake();
    }

    pub(crate) fn reset(&mut self, status: u32) {
        self.remote = Remote::Reset(status);
        if let Some(reply) = self.reply.take() {
            // Nobody waits for the reply any longer: then nobody needs to know.
            let _ = reply.send(false);
        }
        self.wake();
    }
}

impl State {
    pub(crate) fn insert(&mut self, id: u32, reply: Option<oneshot::Sender<bool>>) {
        let entry = Entry {
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            remote: Remote::Open,
            local_closed: false,
            reader: None,
            writer: None,
            reply,
            send_window: self.initial_window,
            unreported: 0,
        };
        self.streams.insert(id, entry);
    }

    /// Data from the peer; whether the stream's reader must make room first.
    pub(crate) fn receive(&mut self, id: u32, bytes: Bytes, fin: bool) -> bool {
        let length = bytes.len();
        let Some(entry) = self.streams.get_mut(&id) else {
            // The stream is gone here, but what came counts in the window of the session.
            self.session_unreported = self.session_unreported.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
            return false;
        };
        if length > 0 {
            entry.inbox_bytes += length;
            entry.inbox.push_back(bytes);
        }
        if fin {
            entry.finish();
        }
        entry.wake();
        entry.is_full()
    }

    /// Moves unread data into the buffer; how much, and whether the peer should hear of it.
    pub(crate) fn take(&mut self, id: u32, buffer: &mut tokio::io::ReadBuf<'_>) -> (usize, bool) {
        let Some(entry) = self.streams.get_mut(&id) else { return (0, false) };
        let mut taken = 0;
        while buffer.remaining() > 0
            && let Some(front) = entry.inbox.front_mut()
        {
            let length = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..length]);
            front.advance(length);
            taken += length;
            if front.is_empty() {
                entry.inbox.pop_front();
            }
        }
        entry.inbox_bytes -= taken;
        let counted = u32::try_from(taken).unwrap_or(u32::MAX);
        entry.unreported = entry.unreported.saturating_add(counted);
        self.session_unreported = self.session_unreported.saturating_add(counted);
        let report = entry.unreported >= WINDOW_UPDATE_AFTER || self.session_unreported >= WINDOW_UPDATE_AFTER;
        (taken, report && self.flow_control)
    }

    /// How much may be sent on the stream now; without flow control, any amount.
    pub(crate) fn send_allowance(&self, id: u32) -> usize {
        if !self.flow_control {
            return usize::MAX;
        }
        let stream = self.streams.get(&id).map_or(0, |entry| entry.send_window);
        usize::try_from(stream.min(self.session_window)).unwrap_or(0)
    }

    /// Counts what is sent.
    pub(crate) fn sent(&mut self, id: u32, length: usize) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        self.session_window = self.session_window.saturating_sub(length);
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.send_window = entry.send_window.saturating_sub(length);
        }
    }

    /// The peer read something of a stream, or (id 0) of the session.
    pub(crate) fn window_update(&mut self, id: u32, delta: u32) {
        if id == 0 {
            self.session_window = self.session_window.saturating_add(i64::from(delta));
            self.streams.values_mut().for_each(|entry| entry.writer.take().into_iter().for_each(Waker::wake));
        } else if let Some(entry) = self.streams.get_mut(&id) {
            entry.send_window = entry.send_window.saturating_add(i64::from(delta));
            entry.writer.take().into_iter().for_each(Waker::wake);
        }
    }

    /// The peer's settings: a new initial window also moves the windows that are in use.
    pub(crate) fn settings(&mut self, entries: &[(u32, u32)]) {
        for (_, value) in entries.iter().filter(|(id, _)| *id == SETTING_INITIAL_WINDOW) {
            let difference = i64::from(*value) - self.initial_window;
            self.initial_window = i64::from(*value);
            for entry in self.streams.values_mut() {
                entry.send_window = entry.send_window.saturating_add(difference);
                entry.writer.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// What is to be written beside the queue: resets and, with flow control, window updates. Without it they would do harm:
    /// a peer that ends the connection with one of them unread makes TCP discard the end of its own output.
    pub(crate) fn take_work(&mut self) -> Vec<Frame> {
        let mut frames: Vec<Frame> =
            self.resets.drain(..).map(|(id, status)| Frame::RstStream { id, status }).collect();
        if !self.flow_control {
            return frames;
        }
        for (id, entry) in &mut self.streams {
            if entry.unreported >= WINDOW_UPDATE_AFTER && entry.remote == Remote::Open {
                frames.push(Frame::WindowUpdate { id: *id, delta: std::mem::take(&mut entry.unreported) });
            }
        }
        if self.session_unreported >= WINDOW_UPDATE_AFTER {
            frames.push(Frame::WindowUpdate { id: 0, delta: std::mem::take(&mut self.session_unreported) });
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let shared = Shared::new(true, true);
        let mut state = shared.state.lock();
        state.insert(1, None);
        let check = |state: &State, expected: usize| assert_eq!(state.send_allowance(1), expected);
        check(&state, 65536);
        state.sent(1, 60000);
        check(&state, 5536);
        state.window_update(1, 100_000);
        check(&state, 5536);
        state.window_update(0, 100_000);
        check(&state, 105_536);
        state.settings(&[(4, 1), (SETTING_INITIAL_WINDOW, 0)]);
        check(&state, 40_000);
        state.sent(1, 50_000);
        check(&state, 0);
    }

    #[test]
    fn without_flow_control_there_is_no_window() {
        let shared = Shared::new(true, false);
        let mut state = shared.state.lock();
        state.insert(1, None);
        state.sent(1, 1 << 30);
        assert_eq!(state.send_allowance(1), usize::MAX);
        state.receive(1, Bytes::from(vec![7; 40_000]), false);
        let mut space = vec![0; 40_000];
        assert_eq!(state.take(1, &mut tokio::io::ReadBuf::new(&mut space)), (40_000, false));
        assert_eq!(state.take_work(), []);
    }

    #[test]
    fn what_was_read_is_reported_once() {
        let shared = Shared::new(false, true);
        let mut state = shared.state.lock();
        state.insert(1, None);
        assert!(!state.receive(1, Bytes::from(vec![7; 40_000]), false));
        let mut space = vec![0; 40_000];
        let mut buffer = tokio::io::ReadBuf::new(&mut space);
        assert_eq!(state.take(1, &mut buffer), (40_000, true));
        let frames = state.take_work();
        assert_eq!(
            frames,
            [Frame::WindowUpdate { id: 1, delta: 40_000 }, Frame::WindowUpdate { id: 0, delta: 40_000 }]
        );
        assert_eq!(state.take_work(), []);
    }
}
