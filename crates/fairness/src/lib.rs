//! API priority and fairness as `flowcontrol.apiserver.k8s.io/v1` describes it: which request runs, waits or is refused.
//!
//! Pure: no clock, no runtime, no store. Times are nanoseconds since some start that the caller chose, and whoever waits is
//! known here by a number only. The rules and constants are upstream's (KEP-1040).

mod allocation;
mod bootstrap;
mod deal;
mod demand;
mod histogram;
mod limits;
mod matching;
mod objects;
mod queues;
mod retry;
mod work;

pub use allocation::{Class, allocate};
pub use bootstrap::{Revision, bootstrap_objects, is_mandatory, revise};
pub use deal::deal;
pub use demand::{Demand, Observed};
pub use histogram::{Histogram, TimedHistogram};
pub use limits::{Configured, Limits, Rebalanced, Shares, configure, initial, max_seats, rebalance};
pub use matching::Digest;
pub use objects::{
    CATCH_ALL, Distinguisher, EXEMPT, FlowSchema, Kind, LevelSpec, PriorityLevel, Queuing, condition_texts, in_order,
    read_level, read_schema,
};
pub use queues::{Arrival, QueueDump, QueueSet, Refusal, Running, Ticket};
pub use retry::RetryAfter;
pub use work::{Listing, Work, list_seats, write_work};
