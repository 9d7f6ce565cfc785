//! SPDY, WebSocket and upgraded connections, for exec, attach and port-forward
