//! Webhooks: what the API server asks of programs outside, how that is sent, and what an answer means.
//!
//! Knows no store and no registry: where a Service's endpoints are is asked through [`Resolver`]. Invariant: whatever is at
//! the other end, a call ends within its timeout and an answer is read up to a bound.

mod admission;
mod answer;
mod client;
mod conditions;
mod connect;
mod conversion;
mod credentials;
mod failure;
mod handshakes;
mod hook;
mod metrics;
mod pool;
mod rules;
mod selector;
mod target;
mod tls;

pub use admission::{Question, Verdict};
pub use answer::denial;
pub use client::{CallError, Client};
pub use conditions::{Authorizers, Conditions, Looked, Match, check_expression};
pub use connect::{Address, Connector, Resolver};
pub use conversion::{ConvertError, Converter};
pub use credentials::Credentials;
pub use handshakes::Handshakes;
pub use hook::{Hook, HookKind};
pub use metrics::{Metrics, Outcome};
pub use pool::{Connections, Pool};
pub use rules::{Asked, Rule};
pub use target::Target;
