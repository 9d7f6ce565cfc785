//! `kedge kubelet`, and `kubelet`: the node agent alone, until SIGINT or SIGTERM.

use anyhow::Result;
use kedge_supervisor::{KubeletOptions, KubeletOverrides, run_kubelet};
use tokio_util::sync::CancellationToken;

use crate::arguments::{CgroupDriver, KubeletFlags};
use crate::commands::up::cancel_on_signals;
use crate::output::{level, start_logging_at};

pub(crate) async fn run(flags: KubeletFlags) -> Result<()> {
    start_logging_at(level(flags.v.into()));
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    Ok(run_kubelet(options(flags), shutdown).await?)
}

fn options(flags: KubeletFlags) -> KubeletOptions {
    let driver = |driver| match driver {
        CgroupDriver::Cgroupfs => kedge_supervisor::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => kedge_supervisor::CgroupDriver::Systemd,
    };
    KubeletOptions {
        kubeconfig: flags.kubeconfig,
        bootstrap_kubeconfig: flags.bootstrap_kubeconfig,
        config: flags.config,
        node_ips: flags.node_ip,
        hostname_override: flags.hostname_override,
        container_runtime_endpoint: flags.container_runtime_endpoint,
        root_dir: flags.root_dir,
        cert_dir: flags.cert_dir,
        pod_manifest_path: flags.pod_manifest_path,
        register_node: flags.register_node,
        register_with_taints: flags.register_with_taints,
        node_labels: flags.node_labels,
        api_balancer: flags.api_balancer,
        api_balancer_seeds: flags.api_balancer_seed,
        overrides: KubeletOverrides {
            cluster_dns: flags.cluster_dns,
            cluster_domain: flags.cluster_domain,
            port: flags.port,
            healthz_bind_address: flags.healthz_bind_address,
            healthz_port: flags.healthz_port,
            max_pods: flags.max_pods,
            cgroup_driver: flags.cgroup_driver.map(driver),
            resolv_conf: flags.resolv_conf,
            tls_cert_file: flags.tls_cert_file,
            tls_private_key_file: flags.tls_private_key_file,
            client_ca_file: flags.client_ca_file,
            rotate_certificates: flags.rotate_certificates,
            rotate_server_certificates: flags.rotate_server_certificates,
            rotate_control_plane_certificates: flags.rotate_control_plane_certificates,
        },
    }
}
