//! Connections to API servers: one that is gone without a word is noticed.
//!
//! Invariant: no try lasts longer than [`PATIENCE`], and no connection is silent for longer than the kernel is told below.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long an address has for taking a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that nobody has acknowledged for so long end a connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_secs(3);
const QUESTIONS: u32 = 3;

/// Connects to an address.
pub(crate) async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", PATIENCE.as_secs()));
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await.map_err(|_| late())??;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(BETWEEN).with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}
