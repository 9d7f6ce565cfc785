//! What programs count, and how Prometheus reads it: counters, gauges and histograms by label values, and the text format.
//!
//! Pure: nothing here listens, or knows what is counted. Invariant: bounded, whatever the label values are.

mod series;
mod text;

pub use series::{Counters, Gauges, Histograms};
pub use text::{Text, amount, seconds};
