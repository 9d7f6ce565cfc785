//! NetworkPolicies as packet rules of a node: which pods of this node are isolated, and who may reach them or be reached
//! by them all the same.
//!
//! Not here: the pods' network itself, and Services; packets are judged after a Service's address was translated. What
//! the rules are is pure ([`plan_policy`], [`plan_pod`]); [`run`] follows the API and keeps the table that way.

mod config;
mod gate;
mod names;
mod object;
mod plan;
mod ports;
mod run;
mod skeleton;
mod worker;
mod world;

pub use config::{Config, Deps, Error};
pub use gate::{Gate, GateKeeper};
pub use object::{NamedPort, Peer, Pod, Policy, Port, PortMatch, Rule};
pub use plan::{plan_pod, plan_policy};
pub use run::{run, teardown};
pub use skeleton::plan_skeleton;
pub use world::World;
