//! SPDY, WebSocket and upgraded connections, for exec, attach and port-forward.
//!
//! It knows streams and protocols, not pods: who may exec, and which container, is decided above. Nothing here dials, but
//! for the streaming server of a container runtime on loopback. Invariant: what an end of a connection sent before it
//! ended arrives at the other end.

mod backend;
mod channels;
mod handshake;
mod port_forward;
mod proxy;
mod reader;
mod remote_command;
mod spdy;
mod status;
mod translate;
mod tunnel;
mod upgrade;

pub use backend::{Target, UpgradeError, dial_url, upgrade_to_spdy};
pub use handshake::{
    PORT_FORWARD_PROTOCOLS, REMOTE_COMMAND_PROTOCOLS, is_spdy_request, is_upgrade_request, is_websocket_request,
    wants_tunnel, websocket_accept,
};
pub use port_forward::{PodIdentity, forward_ports, serve_port_forward};
pub use proxy::proxy_upgrade;
pub use reader::{stream_to_websocket, watch_to_websocket};
pub use remote_command::{RemoteCommand, StreamOptions};
pub use spdy::codec::FrameError;
pub use spdy::connection::{IncomingStream, SpdyConfig, SpdyConnection, SpdyError};
pub use spdy::frame::Headers;
pub use spdy::stream::SpdyStream;
pub use translate::translate_streams;
pub use tunnel::tunnel_port_forward;
pub use upgrade::{SessionError, Upgrade};
