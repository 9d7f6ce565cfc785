//! Phases of a cluster's life: what must be true before it starts, what it finds and leaves in its data directory, the
//! images it is made of, the demo, and how it is taken down.
//!
//! A phase does one thing, says what it did, and can be done again. The order of phases is the supervisor's.

mod addons;
mod addresses;
mod authority_rotation;
mod certs;
mod checks;
mod cluster_configuration;
mod cluster_objects;
mod config_files;
mod demo;
mod documents;
mod etcd_members;
mod health_wait;
mod host;
mod images;
mod init;
mod init_script;
mod join;
mod kubeconfigs;
mod kubelet_keeper;
mod kubelet_service;
mod layout;
mod lock;
mod manifests;
mod node_access;
mod patches;
mod peer_checks;
mod preflight;
mod process;
mod reset_configuration;
mod run_file;
mod system_images;
mod teardown;
mod timeouts;
mod upgrade;

pub use addons::{
    DOCTOR_NAMESPACE, DOCTOR_USER, NetworkAddon, dns_objects, doctor_objects, doctor_rights, network_objects,
    proxy_objects,
};
pub use addresses::{AddressError, find_node_ip, hostname};
pub use authority_rotation::{AuthorityRotation, RotationError, RotationStep};
pub use certs::{CERTIFICATES, CertificateFacts, ensure_certificates};
pub use checks::{Change, CheckFacts, CheckResult, ChecksFailed, Role, check_runtime, mend, run_checks};
pub use cluster_configuration::{
    Addon, Argument, ClusterConfiguration, Component, Etcd, ExternalEtcd, HostPathMount, LocalEndpoint, LocalEtcd,
    Networking, Period,
};
pub use cluster_objects::{
    ApplyError, apply_object, apply_objects, control_plane_taint, mark_control_plane, upload_cluster_configuration,
    upload_kubelet_configuration,
};
pub use config_files::{init_defaults, join_defaults, migrate, reset_defaults, upgrade_defaults, validate};
pub use demo::{DEMO_NODE_PORT, DemoError, DemoState, apply_demo, demo_answers, demo_state};
pub use documents::{
    API_VERSION, ApiEndpoint, ConfigurationError, Documents, InitConfiguration, NodeRegistration, TokenConfiguration,
};
pub use etcd_members::{EtcdMembers, EtcdMembersError, KnownMember};
pub use health_wait::{HealthPatience, Unhealthy};
pub use host::{CERTIFICATES_DIR, HostLayout, KUBELET_DIR, KUBERNETES_DIR, MANIFESTS_DIR, STATE_DIR};
pub use images::{ImageError, Images, ensure_images};
pub use init::{INIT_PHASES, Init, InitError, InitFlags, InitSettings, PhaseError};
pub use init_script::{own_init_script, remove_init_script};
pub use join::{ControlPlaneSettings, JOIN_PHASES, Join, JoinConfiguration, JoinDiscovery, JoinFlags, JoinSettings};
pub use kubeconfigs::{KUBECONFIGS, KubeconfigFacts, ensure_kubeconfigs};
pub use kubelet_keeper::{KUBELET_LOG, ensure_keeper, keep_kubelet, keeper_process};
pub use kubelet_service::{
    KubeletServiceError, kubelet_configuration, start_kubelet, stop_kubelet, write_kubelet_config, write_kubelet_flags,
};
pub use layout::Layout;
pub use lock::{InstanceLock, LockError};
pub use manifests::{
    CONTROL_PLANE, EMBEDDED_STORE_DIR, EtcdMember, ManifestFacts, control_plane_pod, etcd_pod, manifest_command,
    write_manifest,
};
pub use patches::{PatchesConfiguration, PatchesError};
pub use preflight::{Finding, Needs, Severity, missing_programs, preflight};
pub use process::ProcessMark;
pub use reset_configuration::ResetConfiguration;
pub use run_file::{RunFile, RunFileError, mark_ended};
pub use system_images::{SystemImages, ensure_system_images, make_system_images, runtime_socket, sandbox_of};
pub use teardown::{TeardownError, end_process, remove_sandboxes, unmount_below};
pub use timeouts::go_duration;
pub use upgrade::{
    AvailableUpgrade, ClusterVersion, CommandCheck, ComponentPlan, ConfigVersion, Confirm, DeprecatedApi,
    UPGRADE_PHASES, Upgrade, UpgradeCommand, UpgradeConfiguration, UpgradeFlags, UpgradePlan, UpgradeSettings,
};

/// Told what is done, line by line.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);
