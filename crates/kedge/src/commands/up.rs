//! `kedge up`: runs the cluster until SIGINT or SIGTERM.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kedge_supervisor::{EtcdOptions, Flags, Options, Summary};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::{EtcdFlags, Output, UpFlags};
use crate::commands::doctor::always;
use crate::notify;
use crate::output::{Steps, chain, seconds, start_logging};

pub(crate) async fn run(flags: UpFlags, shown: Flags) -> Result<()> {
    let json = flags.output == Output::Json;
    start_logging(json);
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone())?;
    let steps = Steps::new(json);
    let data_dir = kedge_lifecycle::Layout::new(flags.data_dir.data_dir.clone());
    let started =
        kedge_supervisor::start(options(&flags, shown), shutdown.clone(), |progress| steps.show(progress)).await;
    let running = match started {
        Err(_) if shutdown.is_cancelled() => {
            eprintln!("stopped before the cluster was ready; `kedge down` removes what was made so far");
            return Ok(());
        }
        other => other?,
    };
    if flags.doctor {
        let Summary { kubeconfig, node_name, .. } = running.summary();
        let metrics = flags.doctor_metrics_bind_address;
        // A cluster without its doctor is better than none.
        if let Err(error) = always::spawn(kubeconfig, node_name, metrics, shutdown.clone()).await {
            tracing::error!(error = chain(&error), "the doctor does not look after this cluster");
        }
    }
    match json {
        true => println!("{}", serde_json::to_string(running.summary())?),
        false => print!("{}", panel(running.summary(), flags.doctor)),
    }
    notify::ready();
    shutdown.cancelled().await;
    notify::stopping();
    if !json {
        eprintln!("\nstopping; pods keep running (`kedge down` ends them)");
    }
    running.finish().await.context("the cluster did not end cleanly")?;
    if let Err(error) = kedge_lifecycle::mark_ended(&data_dir) {
        tracing::warn!(%error, "that this was an orderly end is not written down");
    }
    Ok(())
}

/// The first signal asks for an orderly end; a second one ends the process at once.
pub(crate) fn cancel_on_signals(shutdown: CancellationToken) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::spawn(async move {
        for count in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if count > 0 {
                std::process::exit(130);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

fn options(flags: &UpFlags, shown: Flags) -> Options {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let variable = std::env::var("KUBECONFIG").ok();
    let kubeconfig =
        flags.kubeconfig.clone().unwrap_or_else(|| kedge_pki::default_kubeconfig_path(variable.as_deref(), &home));
    Options {
        data_dir: flags.data_dir.data_dir.clone(),
        node_ips: flags.node_ip.clone(),
        node_name: flags.node_name.clone(),
        secure_port: flags.secure_port,
        controller_manager_port: flags.controller_manager_secure_port,
        scheduler_port: flags.scheduler_secure_port,
        pod_network_cidr: flags.pod_network_cidr.clone(),
        service_cidr: flags.service_cidr.clone(),
        node_cidr_masks: flags.node_cidr.masks(),
        node_monitor_grace_period: flags.node_monitor_grace_period,
        load_balancer_pool: flags.load_balancer_pool.clone(),
        service_dns_domain: flags.service_dns_domain.clone(),
        network: flags.network.options(),
        etcd: etcd(&flags.etcd),
        container_runtime_endpoint: flags.container_runtime_endpoint.clone(),
        kubelet_config: flags.kubelet_config.clone(),
        scheduler_config: flags.scheduler_config.clone(),
        control_plane_only: flags.control_plane_only,
        simulate: flags.simulate.clone(),
        kubeconfig,
        audit: flags.audit.options(),
        demo: flags.demo,
        flags: shown,
    }
}

fn etcd(flags: &EtcdFlags) -> Option<EtcdOptions> {
    let options = || EtcdOptions {
        servers: flags.etcd_servers.clone(),
        ca_file: flags.etcd_cafile.clone(),
        cert_file: flags.etcd_certfile.clone(),
        key_file: flags.etcd_keyfile.clone(),
        prefix: flags.etcd_prefix.clone(),
    };
    (!flags.etcd_servers.is_empty()).then(options)
}

fn addresses(node_ips: &[IpAddr]) -> String {
    node_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn panel(summary: &Summary, with_doctor: bool) -> String {
    let mut lines = vec![
        format!("Kedge is up after {} (Kubernetes {})", seconds(summary.took), kedge_supervisor::KUBERNETES_VERSION),
        String::new(),
        format!("  API server   {}", summary.server),
        format!("  node         {} ({})", summary.node_name, addresses(&summary.node_ips)),
        format!("  data         {}", summary.data_dir.display()),
    ];
    lines.extend(summary.demo_url.iter().map(|url| format!("  demo         {url}")));
    lines.extend([
        String::new(),
        format!("  kubectl uses it now: context `{}` in {}", summary.context, summary.merged_kubeconfig.display()),
        "  or, in any shell:".to_owned(),
        format!("    export KUBECONFIG={}", summary.kubeconfig.display()),
        String::new(),
        "  next:".to_owned(),
        "    kubectl get nodes".to_owned(),
        "    kubectl get pods -A -o wide".to_owned(),
    ]);
    lines.extend(summary.demo_url.iter().map(|url| format!("    curl {url}/get")));
    lines.extend(with_doctor.then(|| "    kubectl get findings".to_owned()));
    lines.extend([
        "    kedge status".to_owned(),
        String::new(),
        "  Ctrl-C ends kedge; pods keep running. `kedge down` removes everything.".to_owned(),
    ]);
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let rule = "\u{2500}".repeat(width + 2);
    let mut text = format!("\u{256d}{rule}\u{256e}\n");
    for line in lines {
        text.push_str(&format!("\u{2502} {line:<width$} \u{2502}\n"));
    }
    text.push_str(&format!("\u{2570}{rule}\u{256f}\n"));
    text
}
