//! The small web application of the demo, in the manner of httpbin: it shows what arrives, from whom, and which pod
//! answered.
//!
//! It knows nothing of Kubernetes. Invariant: bodies, delays, connections and the time that a slow client may take are
//! bounded.

mod answer;
mod needs;
mod page;
mod server;

pub use answer::{Request, answer};
pub use server::{Error, run};
