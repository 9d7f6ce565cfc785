//! The sockets: questions in, answers out, over UDP and TCP.
//!
//! Invariant: a client's question for names of others never holds up anybody else's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::resolver::{Client, Resolver, Step};

const TCP_CONNECTIONS_MAX: usize = 128;
/// For how long a TCP client may say nothing.
const TCP_PATIENCE: Duration = Duration::from_secs(10);

/// Answers datagrams until `shutdown`.
pub(crate) async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let (length, address) = tokio::select! {
            () = shutdown.cancelled() => return,
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // What comes back are errors of earlier answers whose clients are gone.
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        if !resolver.is_allowed(address.ip()) {
            continue;
        }
        let client = Client { address, is_tcp: false };
        match resolver.begin(&buffer[..length], client) {
            Step::Done(answer) => send(&socket, client, answer).await,
            Step::Wait(pending) => {
                let (socket, resolver) = (socket.clone(), resolver.clone());
                // Bounded by the forwarder, which refuses at once what is too much.
                tokio::spawn(async move { send(&socket, client, resolver.finish(*pending).await).await });
            }
        }
    }
}

async fn send(socket: &UdpSocket, client: Client, answer: Option<Vec<u8>>) {
    let Some(bytes) = answer else { return };
    if let Err(error) = socket.send_to(&bytes, client.address).await {
        tracing::debug!(client = %client.address, %error, "an answer could not be sent");
    }
}

/// Answers connections until `shutdown`.
pub(crate) async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Some((stream, address)) = next_connection(&listener, &resolver, &shutdown).await else { return };
        let (resolver, shutdown) = (resolver.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                // What goes wrong on a client's connection is the client's business.
                _ = serve_stream(stream, Client { address, is_tcp: true }, &resolver) => {}
            }
            drop(slot);
        });
    }
}

/// The next connection of somebody whom the resolver would answer; `None` at the end.
pub(crate) async fn next_connection(
    listener: &TcpListener,
    resolver: &Resolver,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match shutdown.run_until_cancelled(listener.accept()).await? {
            Ok((stream, address)) if resolver.is_allowed(address.ip()) => return Some((stream, address)),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, client: Client, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_PATIENCE, stream.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        tokio::time::timeout(TCP_PATIENCE, stream.read_exact(&mut packet)).await??;
        let answer = match resolver.begin(&packet, client) {
            Step::Done(answer) => answer,
            Step::Wait(pending) => resolver.finish(*pending).await,
        };
        let Some(bytes) = answer else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        tokio::time::timeout(TCP_PATIENCE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
