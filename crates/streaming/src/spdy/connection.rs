//! A SPDY connection: the task that reads, the task that writes, and the opening and accepting of streams.
//!
//! Upstream's implementation has no flow control: it never sends a window update and never waits for one. By default neither
//! do we, or a megabyte of stdin would hang. What bounds memory instead is that the connection is read no further while
//! one of its streams is full. Invariant: frames leave in the order of the queue, and stream numbers grow in that order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::PollSender;
use tracing::debug;

use crate::spdy::codec::{Decoder, Encoder, FrameError};
use crate::spdy::frame::{Frame, Headers, reset};
use crate::spdy::state::{MAX_STREAMS, Shared};
use crate::spdy::stream::{Outgoing, SpdyStream};

/// Upstream's bound on the wait for the answer to a new stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
const QUEUE_FRAMES: usize = 16;
const INCOMING_STREAMS: usize = 16;
const READ_BYTES: usize = 32 * 1024;
/// The writer collects frames up to this much before it writes.
const WRITE_BYTES: usize = 64 * 1024;

/// A stream that could not be opened, or a connection that failed.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The connection is over, or the peer takes no more streams.
    #[error("the SPDY connection is closed")]
    Closed,
    /// The peer refused the stream.
    #[error("Stream reset")]
    Refused,
    /// The peer did not answer in time.
    #[error("Timeout occurred")]
    Timeout,
}

/// Why the reading task ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("could not read")]
    Io(#[from] io::Error),
    #[error("the peer does not speak SPDY")]
    Frame(#[from] FrameError),
}

/// How a connection behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpdyConfig {
    /// Whether sending waits for the peer's window updates, and reading sends them. Only for peers that know of it:
    /// upstream's do not.
    pub flow_control: bool,
}

/// A connection. Dropping it ends it at once, with all of its streams; `close` ends it when everything was written.
pub struct SpdyConnection {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    incoming: Mutex<mpsc::Receiver<IncomingStream>>,
    written: Mutex<Option<oneshot::Receiver<()>>>,
}

/// A stream that the peer opened and that waits for an answer. Dropping it resets the stream.
#[derive(Debug)]
pub struct IncomingStream {
    stream: SpdyStream,
}

impl IncomingStream {
    /// The headers that say what the stream is for.
    pub fn headers(&self) -> &Headers {
        self.stream.headers()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.stream.id()
    }

    /// Takes it; what the peer sent meanwhile is not lost.
    pub async fn accept(mut self) -> io::Result<SpdyStream> {
        let reply = Frame::SynReply { id: self.stream.id(), fin: false, headers: Headers::new() };
        self.stream.send(reply).await?;
        Ok(self.stream)
    }

    /// Refuses it.
    pub fn refuse(self) {
        self.stream.refuse();
    }
}

impl SpdyConnection {
    /// The side that asked for the upgrade.
    pub fn client<IO>(io: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(io, true, SpdyConfig::default())
    }

    /// The side that was asked.
    pub fn server<IO>(io: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start(io, false, SpdyConfig::default())
    }

    /// Either side, with other than upstream's behaviour.
    pub fn start<IO>(io: IO, client: bool, config: SpdyConfig) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let shared = Shared::new(client, config.flow_control);
        let (queue, queued) = mpsc::channel(QUEUE_FRAMES);
        let (incoming_sender, incoming) = mpsc::channel(INCOMING_STREAMS);
        let (written_sender, written) = oneshot::channel();
        let (read, write) = tokio::io::split(io);
        let reader = Reader { shared: shared.clone(), queue: queue.clone(), incoming: incoming_sender };
        tokio::spawn(run_reader(reader, read));
        tokio::spawn(run_writer(shared.clone(), queued, write, written_sender));
        Self { shared, queue, incoming: Mutex::new(incoming), written: Mutex::new(Some(written)) }
    }

    /// Opens a stream and waits for the peer's consent.
    pub async fn open_stream(&self, headers: Headers) -> Result<SpdyStream, SpdyError> {
        let place = self.queue.reserve().await.map_err(|_| SpdyError::Closed)?;
        let (reply, replied) = oneshot::channel();
        let stream = {
            let mut state = self.shared.state.lock();
            if state.going_away || state.next_id > 0x7fff_ffff {
                return Err(SpdyError::Closed);
            }
            let id = state.next_id;
            state.next_id += 2;
            state.insert(id, Some(reply));
            // Under the lock, so that numbers enter the queue in their order.
            place.send(Outgoing::Frame(Frame::SynStream { id, fin: false, headers: headers.clone() }));
            SpdyStream::new(id, headers, self.shared.clone(), PollSender::new(self.queue.clone()))
        };
        match tokio::time::timeout(OPEN_TIMEOUT, replied).await {
            Ok(Ok(true)) => Ok(stream),
            Ok(Ok(false)) => Err(SpdyError::Refused),
            Ok(Err(_)) => Err(SpdyError::Closed),
            Err(_) => Err(SpdyError::Timeout),
        }
    }

    /// The next stream that the peer opens; `None` when the connection is over. It must be called again and again: the
    /// connection is not read further while 16 streams wait.
    pub async fn accept_stream(&self) -> Option<IncomingStream> {
        self.incoming.lock().await.recv().await
    }

    /// Sends a ping and waits for its answer.
    pub async fn ping(&self) -> Result<(), SpdyError> {
        let place = self.queue.reserve().await.map_err(|_| SpdyError::Closed)?;
        let (pong, answered) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if self.shared.closed.is_cancelled() {
                return Err(SpdyError::Closed);
            }
            let id = state.next_ping;
            // Keeps its parity when it wraps around.
            state.next_ping = if id > 0x7fff_fffd { id - 0x7fff_fffc } else { id + 2 };
            state.pings.insert(id, pong);
            place.send(Outgoing::Frame(Frame::Ping { id }));
        }
        answered.await.map_err(|_| SpdyError::Closed)
    }

    /// Waits until the connection is over.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Says good-bye, and returns when everything that was written before is out.
    pub async fn close(self) {
        let last_good = {
            let mut state = self.shared.state.lock();
            state.going_away = true;
            state.last_received
        };
        let good_bye = Outgoing::Frame(Frame::GoAway { last_good, status: 0 });
        if self.queue.send(good_bye).await.is_ok() && self.queue.send(Outgoing::Close).await.is_ok() {
            let written = self.written.lock().await.take();
            if let Some(written) = written {
                // An error only means that the writer ended on its own, which is as final.
                let _ = written.await;
            }
        }
    }
}

impl Drop for SpdyConnection {
    fn drop(&mut self) {
        self.shared.end();
    }
}

async fn run_writer<W: AsyncWrite + Send>(
    shared: Arc<Shared>,
    mut queued: mpsc::Receiver<Outgoing>,
    write: W,
    written: oneshot::Sender<()>,
) {
    tokio::pin!(write);
    let mut encoder = Encoder::new();
    let mut buffer = BytesMut::new();
    let mut last = false;
    while !last {
        tokio::select! {
            biased;
            item = queued.recv() => last = encode(item, &mut queued, &mut encoder, &mut buffer),
            () = shared.work.notified() => {}
            () = shared.closed.cancelled() => break,
        }
        let work = shared.state.lock().take_work();
        work.iter().for_each(|frame| encoder.encode(frame, &mut buffer));
        let wrote = async {
            write.write_all_buf(&mut buffer).await?;
            write.flush().await
        };
        // A peer that reads nothing must not hold a connection that was ended here.
        if !matches!(shared.closed.run_until_cancelled(wrote).await, Some(Ok(()))) {
            break;
        }
    }
    // The peer may have gone first; there is nobody to tell then.
    let _ = write.shutdown().await;
    let _ = written.send(());
    shared.end();
}

/// Encodes the item and those behind it, up to a good amount; whether it was the last.
fn encode(
    mut item: Option<Outgoing>,
    queued: &mut mpsc::Receiver<Outgoing>,
    encoder: &mut Encoder,
    buffer: &mut BytesMut,
) -> bool {
    loop {
        match item {
            Some(Outgoing::Frame(frame)) => encoder.encode(&frame, buffer),
            Some(Outgoing::Close) | None => return true,
        }
        if buffer.len() >= WRITE_BYTES {
            return false;
        }
        match queued.try_recv() {
            Ok(next) => item = Some(next),
            Err(_) => return false,
        }
    }
}

/// What the reading task works with.
struct Reader {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    incoming: mpsc::Sender<IncomingStream>,
}

async fn run_reader<R: AsyncRead + Send>(reader: Reader, read: R) {
    let closed = reader.shared.closed.clone();
    if let Some(Err(error)) = closed.run_until_cancelled(reader.read(read)).await {
        debug!(error = &error as &dyn std::error::Error, "a SPDY connection failed");
    }
    reader.shared.end();
}

impl Reader {
    async fn read<R: AsyncRead>(&self, read: R) -> Result<(), ReadError> {
        tokio::pin!(read);
        let mut decoder = Decoder::new();
        let mut input = BytesMut::new();
        loop {
            while let Some(frame) = decoder.decode(&mut input)? {
                self.handle(frame).await;
            }
            input.reserve(READ_BYTES);
            if read.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn handle(&self, frame: Frame) {
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => {
                if self.shared.state.lock().receive(id, bytes, fin) {
                    self.wait_for_space(id).await;
                }
            }
            Frame::Ping { id } => self.pong(id).await,
            Frame::GoAway { .. } => self.shared.state.lock().going_away = true,
            Frame::Settings { entries } => self.shared.state.lock().settings(&entries),
            Frame::WindowUpdate { id, delta } => self.shared.state.lock().window_update(id, delta),
            Frame::SynReply { id, fin, .. } | Frame::Headers { id, fin, .. } => {
                if let Some(entry) = self.shared.state.lock().streams.get_mut(&id) {
                    if let Some(reply) = entry.reply.take() {
                        // Whoever opened it may have given up.
                        let _ = reply.send(true);
                    }
                    if fin {
                        entry.finish();
                    }
                }
            }
            Frame::RstStream { id, status } => {
                if let Some(entry) = self.shared.state.lock().streams.get_mut(&id) {
                    entry.reset(status);
                }
                // Its reader need not make room any longer.
                self.shared.space.notify_one();
            }
        }
    }

    async fn wait_for_space(&self, id: u32) {
        while self.shared.state.lock().streams.get(&id).is_some_and(super::state::Entry::is_full) {
            self.shared.space.notified().await;
        }
    }

    async fn pong(&self, id: u32) {
        let ours = {
            let mut state = self.shared.state.lock();
            let ours = id % 2 == state.next_ping % 2;
            if ours && let Some(pong) = state.pings.remove(&id) {
                // Whoever pinged may have given up.
                let _ = pong.send(());
            }
            ours
        };
        if !ours {
            // The writer is gone only when the connection is.
            let _ = self.queue.send(Outgoing::Frame(Frame::Ping { id })).await;
        }
    }

    async fn open(&self, id: u32, fin: bool, headers: Headers) {
        let refusal = {
            let mut state = self.shared.state.lock();
            let parity_is_ours = id % 2 == state.next_id % 2;
            if state.going_away {
                return;
            } else if id == 0 || parity_is_ours || id <= state.last_received {
                Some(reset::PROTOCOL_ERROR)
            } else if state.streams.len() >= MAX_STREAMS {
                Some(reset::REFUSED_STREAM)
            } else {
                state.last_received = id;
                state.insert(id, None);
                if fin && let Some(entry) = state.streams.get_mut(&id) {
                    entry.finish();
                }
                None
            }
        };
        if let Some(status) = refusal {
            // The writer is gone only when the connection is.
            let _ = self.queue.send(Outgoing::Frame(Frame::RstStream { id, status })).await;
            return;
        }
        let queue = PollSender::new(self.queue.clone());
        let stream = SpdyStream::new(id, headers, self.shared.clone(), queue);
        // Where nobody accepts any more, dropping the stream resets it.
        let _ = self.incoming.send(IncomingStream { stream }).await;
    }
}
