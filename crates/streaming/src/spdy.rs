//! SPDY/3.1, as far as Kubernetes uses it: many two-way streams over one connection.
//!
//! There is no push, no priorities and no credentials. The framing is that of SPDY draft 3.1.

pub(crate) mod codec;
pub(crate) mod connection;
pub(crate) mod dictionary;
pub(crate) mod frame;
pub(crate) mod state;
pub(crate) mod stream;
