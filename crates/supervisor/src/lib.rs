//! Start order, wiring and shutdown of one process: the only place that knows every component and picks the adapters.
//!
//! It holds no logic of its own: what a component does is in its crate, what a phase does is in `lifecycle`.

mod backend;
mod component;
mod control_plane;
mod down;
mod error;
mod image;
mod join;
mod joining;
mod kubelet;
mod memory;
mod metrics_api;
mod node;
mod options;
mod progress;
mod reset;
mod signer;
mod start;
mod status;

pub use backend::EtcdOptions;
pub use component::{
    ApiServerOptions, ControllerManagerOptions, DelegationOptions, DnsOptions, HealthOptions, LeaderOptions,
    NetworkAgentOptions, ProxyOptions, RequestHeaderOptions, SchedulerOptions, SigningFiles, SigningOptions,
    parse_duration, run_apiserver, run_controller_manager, run_dns, run_network_agent, run_proxy, run_scheduler,
};
pub use down::{DownReport, down};
pub use error::Error;
pub use image::load_image;
pub use join::{JoinOptions, JoinSummary, RunningNode, join};
pub use kedge_audit::{AuditOptions, BatchOptions, LogOptions, TruncateOptions, WebhookOptions};
pub use kedge_auth::AuthorizationMode;
pub use kedge_bootstrap::{BootstrapToken, CertificateKey};
pub use kedge_controllers::AutoscalerConfig;
pub use kedge_kubelet::CgroupDriver;
pub use kedge_lifecycle::{
    AuthorityRotation, CERTIFICATES_DIR, HostLayout, Init, InitFlags, InitSettings, JOIN_PHASES, Join, JoinFlags,
    JoinSettings, ResetConfiguration, RotationStep, Say, SystemImages, UPGRADE_PHASES, Upgrade, UpgradeCommand,
    UpgradeFlags, UpgradeSettings, init_defaults, join_defaults, keep_kubelet, make_system_images, migrate,
    reset_defaults, runtime_socket, upgrade_defaults, validate,
};
pub use kedge_meta::{KUBERNETES_VERSION, build_version, full_version};
pub use kedge_simulate::{Config as SimulateConfig, ParseConfigError as ParseSimulateError};
pub use kedge_zpages::{Flags, on_verbosity};
pub use kubelet::{KubeletOptions, KubeletOverrides, run_kubelet};
pub use options::{NetworkOptions, Options};
pub use progress::Progress;
pub use reset::{ResetOptions, reset};
pub use signer::AuthoritySigner;
pub use start::{Running, Summary, start};
pub use status::{Status, status};
