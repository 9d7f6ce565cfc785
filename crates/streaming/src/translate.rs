//! Exec and attach for WebSocket clients, in front of a SPDY backend.
//!
//! It is the API server's part: kubectl speaks WebSocket, kubelets and container runtimes speak SPDY. Invariant: the outcome
//! goes out after all output, and the client always gets one.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::backend::{Target, UpgradeError, upgrade_to_spdy};
use crate::channels::{self, ChannelProtocol, Incoming, websocket_config};
use crate::handshake::{REMOTE_COMMAND_PROTOCOLS, accept_websocket, websocket_protocols};
use crate::remote_command::{RemoteCommand, StreamOptions};
use crate::spdy::connection::SpdyConnection;
use crate::spdy::stream::SpdyStream;
use crate::status::Outcome;
use crate::upgrade::{SessionError, Upgrade, plain_error};

/// Upstream's period; it keeps load balancers from closing an idle connection.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// Upstream's bound on telling a client the outcome.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an end may take to part properly before its connection is closed.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 32 * 1024;
/// Messages that wait for a slow client.
const QUEUE_MESSAGES: usize = 4;
/// An outcome is a line of text.
const MAX_OUTCOME_BYTES: u64 = 1024 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Takes the client's WebSocket connection, then dials the backend and joins the two. What goes wrong after the handshake
/// is told on the error channel, as upstream tells it.
pub fn translate_streams<B, IO, D, F>(
    mut request: Request<B>,
    options: StreamOptions,
    target: Target,
    dial: D,
) -> Upgrade
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: FnOnce() -> F + Send + 'static,
    F: Future<Output = io::Result<IO>> + Send,
{
    let offered = websocket_protocols(request.headers());
    let Some(protocol) = ChannelProtocol::choose(&offered) else {
        let known: Vec<&str> = ChannelProtocol::names().collect();
        let text =
            format!("requested protocol(s) are not supported: [{}]; supports [{}]", offered.join(" "), known.join(" "));
        return Upgrade::refuse(plain_error(StatusCode::FORBIDDEN, &text));
    };
    let response = match accept_websocket(request.method(), request.headers(), protocol.name) {
        Ok(response) => response,
        Err(refusal) => return Upgrade::refuse(*refusal),
    };
    let client = hyper::upgrade::on(&mut request);
    Upgrade::accept(response, async move {
        let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket_config())).await;
        run(socket, protocol, options, async move { connect(dial, &target).await }).await
    })
}

async fn connect<IO, D, F>(dial: D, target: &Target) -> Result<(SpdyConnection, String), Outcome>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: FnOnce() -> F,
    F: Future<Output = io::Result<IO>>,
{
    let io = dial().await.map_err(|error| Outcome::Failed(format!("error dialing backend: {error}")))?;
    upgrade_to_spdy(io, target, &REMOTE_COMMAND_PROTOCOLS).await.map_err(|error| match error {
        UpgradeError::Refused { status: Some(status), .. } => Outcome::Status(*status),
        error => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Outcome::Failed(format!("{error}{cause}"))
        }
    })
}

async fn run(
    mut socket: Socket,
    protocol: ChannelProtocol,
    options: StreamOptions,
    connect: impl Future<Output = Result<(SpdyConnection, String), Outcome>>,
) -> Result<(), SessionError> {
    // An empty message tells the client that it is connected.
    let first = match options {
        StreamOptions { stdout: true, .. } => channels::STDOUT,
        StreamOptions { stderr: true, .. } => channels::STDERR,
        _ => channels::ERROR,
    };
    socket.send(protocol.write(first, &[])).await.map_err(Box::new)?;
    let (mut sink, mut source) = socket.split();
    let outcome = match connect.await {
        Err(outcome) => Some(outcome),
        Ok((connection, backend_protocol)) => {
            let outcome = match RemoteCommand::open(&connection, &backend_protocol, options).await {
                Err(error) => Some(Outcome::Failed(error.to_string())),
                Ok(command) => {
                    let backend = Backend { connection: &connection, protocol: &backend_protocol };
                    join(&mut sink, &mut source, protocol, backend, command).await?
                }
            };
            if outcome.is_some() {
                // A backend that does not read any more must not keep the outcome from the client.
                let _ = tokio::time::timeout(CLOSE_GRACE, connection.close()).await;
            }
            outcome
        }
    };
    // Without an outcome the client has left: there is nobody to tell.
    match outcome {
        Some(outcome) => {
            let told = tokio::time::timeout(OUTCOME_TIMEOUT, finish(sink, source, protocol, &outcome)).await;
            told.unwrap_or_else(|_| Err(SessionError::Client(io::ErrorKind::TimedOut.into())))
        }
        None => Ok(()),
    }
}

/// The backend's connection and what is spoken on it.
struct Backend<'a> {
    connection: &'a SpdyConnection,
    protocol: &'a str,
}

/// Copies until the backend tells the outcome, or the client leaves (`None`).
async fn join(
    sink: &mut SplitSink<Socket, Message>,
    source: &mut SplitStream<Socket>,
    protocol: ChannelProtocol,
    backend: Backend<'_>,
    command: RemoteCommand,
) -> Result<Option<Outcome>, SessionError> {
    let RemoteCommand { mut error, stdin, stdout, stderr, resize } = command;
    let (queue, queued) = mpsc::channel(QUEUE_MESSAGES);
    let output = async move {
        tokio::join!(
            copy_output(protocol, channels::STDOUT, stdout, queue.clone()),
            copy_output(protocol, channels::STDERR, stderr, queue.clone()),
        );
        drop(queue);
    };
    let outcome = async {
        let mut message = Vec::new();
        // A stream that fails said nothing, or not all: either is no success.
        match (&mut error).take(MAX_OUTCOME_BYTES).read_to_end(&mut message).await {
            Err(failure) if message.is_empty() => {
                Outcome::Failed(format!("error reading from error stream: {failure}"))
            }
            _ => Outcome::read(backend.protocol, &message),
        }
    };
    tokio::select! {
        ((), sent, outcome) = async { tokio::join!(output, send_all(sink, queued), outcome) } => {
            sent.map(|()| Some(outcome))
        }
        left = copy_input(source, protocol, stdin, resize) => left.map(|()| None),
        () = keep_alive(backend.connection) => unreachable!("it pings until the connection is dropped"),
    }
}

async fn keep_alive(connection: &SpdyConnection) {
    loop {
        tokio::time::sleep(PING_PERIOD).await;
        if connection.ping().await.is_err() {
            // The streams hear of the end themselves.
            std::future::pending::<()>().await;
        }
    }
}

async fn send_all(
    sink: &mut SplitSink<Socket, Message>,
    mut queued: mpsc::Receiver<Message>,
) -> Result<(), SessionError> {
    while let Some(message) = queued.recv().await {
        sink.send(message).await.map_err(Box::new)?;
    }
    Ok(())
}

/// Sends what a stream gives; that it failed shows in the outcome.
async fn copy_output(protocol: ChannelProtocol, channel: u8, stream: Option<SpdyStream>, queue: mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        if queue.send(protocol.write(channel, &buffer)).await.is_err() {
            return;
        }
        buffer.clear();
    }
}

/// Passes on what the client sends, until it leaves.
async fn copy_input(
    source: &mut SplitStream<Socket>,
    protocol: ChannelProtocol,
    mut stdin: Option<SpdyStream>,
    mut resize: Option<SpdyStream>,
) -> Result<(), SessionError> {
    while let Some(message) = source.next().await {
        match protocol.read(message.map_err(Box::new)?) {
            Incoming::Data(channel, data) => {
                let stream = match channel {
                    channels::STDIN => &mut stdin,
                    channels::RESIZE => &mut resize,
                    _ => continue,
                };
                if let Some(open) = stream
                    && open.write_all(&data).await.is_err()
                {
                    // The process has closed its input; the rest of it goes nowhere, and that is no error.
                    *stream = None;
                }
            }
            Incoming::End(channels::STDIN) => {
                if let Some(mut stdin) = stdin.take() {
                    // It can fail only where the backend is done with it.
                    let _ = stdin.shutdown().await;
                }
            }
            Incoming::Leave => break,
            Incoming::End(_) | Incoming::Nothing => {}
        }
    }
    Ok(())
}

/// Tells the outcome and parts from the client properly, so that nothing of what was sent is lost.
async fn finish(
    mut sink: SplitSink<Socket, Message>,
    mut source: SplitStream<Socket>,
    protocol: ChannelProtocol,
    outcome: &Outcome,
) -> Result<(), SessionError> {
    if let Some(message) = outcome.write(protocol.structured) {
        sink.send(protocol.write(channels::ERROR, &message)).await.map_err(Box::new)?;
    }
    let good_bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(good_bye))).await.map_err(Box::new)?;
    // Closing a socket with unread input could destroy what the client has not read yet.
    let answered = async { while let Some(Ok(_)) = source.next().await {} };
    let _ = tokio::time::timeout(CLOSE_GRACE, answered).await;
    Ok(())
}
