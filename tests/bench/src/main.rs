//! Benchmarks of a kedge binary: how soon it serves, what it takes of memory, how much its API server carries.
//!
//! The server under test is a process of its own, reached over TLS as any client reaches it. Nothing here judges: it
//! reports figures. Invariant: a figure is only reported for work that was done; an answer other than 2xx ends the run.

mod api;
mod benches;
mod connection;
mod figures;
mod load;
mod machine;
mod objects;
mod server;
mod target;
mod watchers;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tempfile::TempDir;

use crate::figures::Report;

/// Measures a kedge binary, or the API server of another cluster.
#[derive(Debug, Parser)]
#[command(name = "kedge-bench")]
pub(crate) struct Arguments {
    /// What to measure [default: everything].
    #[arg(value_enum, value_name = "NAME")]
    names: Vec<Bench>,
    /// The binary under test.
    #[arg(long, value_name = "FILE", env = "KEDGE_BINARY", required_unless_present = "server")]
    binary: Option<PathBuf>,
    /// Put the API load on this server instead of starting one, such as `https://127.0.0.1:6443`.
    #[arg(long, value_name = "URL", requires = "kubeconfig")]
    server: Option<String>,
    /// Certificates for `--server`: the current context's, with rights to do everything.
    #[arg(long, value_name = "FILE", requires = "server")]
    kubeconfig: Option<PathBuf>,
    /// Data directories are made here; it should lie on the disk that a cluster would use.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    work_dir: PathBuf,
    /// How many objects of a kind are written.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    objects: u64,
    /// How many clients write and get, each on a connection of its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// How many pods the large clusters of `api` and `controllers` have.
    #[arg(long, value_name = "NUMBER", default_value_t = 150_000, value_parser = clap::value_parser!(u64).range(100..))]
    fleet_pods: u64,
    /// How many nodes renew their leases in them, and how many `scheduler` has; its pods are fewer in proportion.
    #[arg(long, value_name = "NUMBER", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(32..))]
    fleet_nodes: u64,
    /// The workloads of `scheduler`, by upstream's names [default: all].
    #[arg(long = "workload", value_name = "NAME")]
    workloads: Vec<String>,
    /// Where the figures are written as JSON, besides the table.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

/// The benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// From the start of the process to the first answer.
    Startup,
    /// Resident memory of the control plane.
    Memory,
    /// Requests and watches over TLS.
    Api,
    /// A full node with the demo: memory, time to ready. Needs root.
    Node,
    /// Packet rules of Services: changes, load time, memory, traffic. Needs root and nft.
    Network,
    /// `kedge init` and `kedge join` on machines made of namespaces. Needs root, containerd and etcd.
    Cluster,
    /// Upstream's workloads for schedulers, on simulated nodes.
    Scheduler,
    /// Large Deployments, namespaces and clusters, on simulated nodes.
    Controllers,
    /// `kedge doctor` on a simulated large cluster, and on this machine.
    Doctor,
}

impl Arguments {
    fn names(&self) -> Vec<Bench> {
        match (self.names.is_empty(), &self.server) {
            (false, _) => self.names.clone(),
            (true, Some(_)) => vec![Bench::Api],
            (true, None) => Bench::value_variants().to_vec(),
        }
    }

    /// An empty directory that goes with the value.
    fn work_dir(&self) -> Result<TempDir> {
        let dir = tempfile::Builder::new().prefix("kedge-bench-").tempdir_in(&self.work_dir);
        dir.with_context(|| format!("cannot make a directory in {}", self.work_dir.display()))
    }

    fn binary(&self) -> Result<PathBuf> {
        let binary = self.binary.as_ref().context("this needs a binary: set KEDGE_BINARY or --binary")?;
        fs::canonicalize(binary).with_context(|| format!("there is no binary at {}", binary.display()))
    }
}

fn main() -> ExitCode {
    // Looks often for what has arrived: those that read large lists would delay what the others measure.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).event_interval(8).enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&Arguments::parse())));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::new(machine::describe());
    let mut result = Ok(());
    for name in arguments.names() {
        result = match name {
            Bench::Startup => benches::startup::run(arguments, &mut report).await,
            Bench::Memory => benches::memory::run(arguments, &mut report).await,
            Bench::Api => benches::api::run(arguments, &mut report).await,
            Bench::Node => benches::node::run(arguments, &mut report).await,
            Bench::Network => benches::network::run(arguments, &mut report).await,
            Bench::Cluster => benches::cluster::run(arguments, &mut report).await,
            Bench::Scheduler => benches::scheduler::run(arguments, &mut report).await,
            Bench::Controllers => benches::controllers::run(arguments, &mut report).await,
            Bench::Doctor => benches::doctor::run(arguments, &mut report).await,
        };
        if let Err(error) = result {
            result = Err(error.context(format!("{name:?} failed").to_lowercase()));
            break;
        }
    }
    // What was measured before a failure is still worth reading.
    println!("{}", report.table());
    if let Some(parent) = arguments.json.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(&arguments.json, report.json()?).with_context(|| format!("cannot write {}", arguments.json.display()))?;
    println!("JSON: {}", arguments.json.display());
    result
}
