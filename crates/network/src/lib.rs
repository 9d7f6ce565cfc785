//! The pod network of one node: a bridge, the CNI configuration that plugs pods into it, the kernel switches, routes and
//! rules that let pods reach each other, Services and the world, and keep packets for nobody on the machine.
//!
//! Between nodes, routes come by BGP from the other nodes of the cluster and from configured peers ([`run_mesh`]), and
//! lead through VXLAN where a router is between. Addresses of Services are
//! announced on the nodes' segment and to peers outside ([`run_announce`]). Where somebody has configured another network, both keep out of its way.
//!
//! Not here: Services (the proxy's), plugging a pod in (the CNI plugins', called by the container runtime). What is
//! planned is pure; [`run`] keeps the machine that way and [`teardown`] removes what was made.

mod agreement;
mod announce;
mod cni;
mod config;
mod foreign;
mod link;
mod mesh;
mod mode;
mod neighbours;
mod probe;
mod publish;
mod reach;
mod record;
mod routes;
mod rules;
mod run;
mod setup;
mod teardown;
mod tunnel;

pub use agreement::Agreement;
pub use announce::{AnnounceConfig, AnnounceDeps, POOL_ANNOTATION, run_announce};
pub use cni::{CNI_FILE_NAME, NETWORK_NAME, PLUGINS, find_plugins, plan_cni_config};
pub use config::{CNI_CONFIG_DIR, Config, Deps, Error, PLUGIN_DIRS};
pub use kedge_bgp::PeerConfig;
pub use mesh::{DEFAULT_ASN, MeshConfig, MeshDeps, NodePeer, plan_mesh_routes, plan_node_peers, plan_peers, run_mesh};
pub use mode::{Hop, NetworkMode, VXLAN_OVERHEAD, VxlanConfig, Way, plan_mtu, plan_way};
pub use reach::{PeerReachability, PodPath, REACHABILITY_ANNOTATION, Reachability, RouteState};
pub use routes::{RouteKind, RouteSpec, gateway, plan_routes};
pub use rules::plan_rules;
pub use run::run;
pub use teardown::teardown;
