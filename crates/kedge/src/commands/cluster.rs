//! `kedge cluster`: clusters of several nodes on this machine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kedge_cluster::{ClusterLayout, ClusterView, CreateOptions, Created, Stop};

use crate::arguments::{ClusterCommand, ClusterFlags, ClustersDir, CreateFlags, IpFamily, NodeCommand, Output};
use crate::output::{seconds, start_logging_at, table};

/// The parts that must run before the process has other threads, because they change namespaces. `None` where it is none of
/// them.
pub(crate) fn run_alone(flags: &ClusterFlags) -> Option<Result<()>> {
    let result = match &flags.command {
        ClusterCommand::Boot { cluster_dir, node } => {
            kedge_cluster::boot(cluster_dir, node).map(|pid| println!("{pid}"))
        }
        ClusterCommand::Init { cluster_dir, node } => {
            start_logging_at("info");
            kedge_cluster::init(cluster_dir, node)
        }
        ClusterCommand::Gateway { cluster_dir } => {
            start_logging_at("info");
            kedge_cluster::gateway(cluster_dir)
        }
        ClusterCommand::Exec { clusters, node, command } => Err(kedge_cluster::exec(&root(clusters), node, command)),
        _ => return None,
    };
    Some(result.map_err(Into::into))
}

pub(crate) async fn run(flags: ClusterFlags) -> Result<()> {
    start_logging_at("warn");
    match flags.command {
        ClusterCommand::Create(flags) => create(flags).await,
        ClusterCommand::List { clusters, output } => show(&kedge_cluster::list(&root(&clusters))?, output),
        ClusterCommand::Delete { clusters, name } => {
            match kedge_cluster::delete(&root(&clusters), &name)? {
                true => println!("the cluster {name} is deleted"),
                false => println!("nothing to do: there is no cluster {name}"),
            }
            Ok(())
        }
        ClusterCommand::Node { command } => node(command),
        ClusterCommand::Load { clusters, name, archives } => {
            Ok(kedge_cluster::load_images(&root(&clusters), &name, &archives)?)
        }
        // Done by `run_alone`.
        ClusterCommand::Boot { .. }
        | ClusterCommand::Init { .. }
        | ClusterCommand::Gateway { .. }
        | ClusterCommand::Exec { .. } => Ok(()),
    }
}

async fn create(flags: CreateFlags) -> Result<()> {
    let is_text = flags.output == Output::Text;
    let clusters = root(&flags.clusters);
    let options = CreateOptions {
        clusters: clusters.clone(),
        kubeconfig: Some(std::path::absolute(flags.kubeconfig.unwrap_or_else(default_kubeconfig))?),
        name: flags.name,
        nodes: flags.nodes,
        control_planes: flags.control_planes,
        dual_stack: flags.ip_family == IpFamily::Dual,
        images: flags.images,
        kubelet_config: flags.kubelet_config,
        control_plane_flags: flags.control_plane_flags,
        node_flags: flags.node_flags,
        log: std::env::var("KEDGE_LOG").ok().filter(|log| !log.is_empty()).unwrap_or_else(|| "info".to_owned()),
        retain: flags.retain,
    };
    let created = kedge_cluster::create(options, |step| {
        if is_text {
            eprintln!("  {step}");
        }
    })
    .await?;
    match is_text {
        true => print!("{}", panel(&clusters, &created)),
        false => {
            let views = kedge_cluster::list(&clusters)?;
            let view = views.into_iter().find(|view| view.name == created.record.name);
            println!("{}", serde_json::to_string(&view)?);
        }
    }
    Ok(())
}

fn panel(clusters: &Path, created: &Created) -> String {
    let name = &created.record.name;
    let layout = ClusterLayout::new(clusters, name);
    let control_planes = created.record.control_planes().count();
    format!(
        "the cluster {name} is up after {}: {} nodes, {control_planes} with a control plane\n\n  \
         export KUBECONFIG={}\n  kubectl get nodes -o wide\n  \
         kedge cluster exec {} -- ip route\n  kedge cluster delete {name}\n\n\
         its files are in {}\n",
        seconds(created.took),
        created.record.nodes.len(),
        created.kubeconfig.display(),
        name.node(1),
        layout.root().display(),
    )
}

fn show(views: &[ClusterView], output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(views)?);
        return Ok(());
    }
    let head = ["CLUSTER", "NODE", "ROLE", "ADDRESS", "STATE", "API SERVER"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for view in views {
        for node in &view.nodes {
            rows.push(vec![
                view.name.to_string(),
                node.record.name.to_string(),
                node.record.role.as_str().to_owned(),
                node.record.address.to_string(),
                node.state.as_str().to_owned(),
                view.server.clone(),
            ]);
        }
        if let Some(problem) = &view.problem {
            eprintln!("{}: {problem}", view.name);
        }
    }
    print!("{}", table(&rows));
    Ok(())
}

fn node(command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Stop { clusters, node, shutdown, power } => {
            let how = match (shutdown, power) {
                (true, _) => Stop::Shutdown,
                (_, true) => Stop::Power,
                _ => Stop::Agent,
            };
            kedge_cluster::stop(&root(&clusters), &node, how)?;
        }
        NodeCommand::Start { clusters, node } => kedge_cluster::start(&root(&clusters), &node)?,
        NodeCommand::Cut { clusters, node } => kedge_cluster::cut(&root(&clusters), &node)?,
        NodeCommand::Heal { clusters, node } => kedge_cluster::heal(&root(&clusters), &node)?,
    }
    Ok(())
}

/// Nodes are other processes with other working directories.
fn root(clusters: &ClustersDir) -> PathBuf {
    std::path::absolute(&clusters.clusters_dir).unwrap_or_else(|_| clusters.clusters_dir.clone())
}

fn default_kubeconfig() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    kedge_pki::default_kubeconfig_path(std::env::var("KUBECONFIG").ok().as_deref(), &home)
}
