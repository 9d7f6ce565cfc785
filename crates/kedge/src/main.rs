//! The `kedge` command: flags and output. The work is in the crates below.

mod arguments;
mod commands;
mod notify;
mod output;
mod pause;

use std::process::ExitCode;

use clap::Parser;
use kedge_supervisor::Flags;

use crate::arguments::{Command, KubeletArguments};

/// Objects are trees of small pieces, made on one thread and dropped on another: a third of the time of a write was glibc's
/// `malloc` and `free`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After so many turns of tasks it is looked what has arrived. By default it is 61: while large lists leave, each turn takes
/// part of a millisecond, and a small request was not heard for a fiftieth of a second.
const EVENT_INTERVAL: u32 = 8;

fn main() -> ExitCode {
    // The sandbox image is this binary under another name; it must start without a runtime, in next to no memory.
    if called("pause") {
        return pause::run();
    }
    let (command, flags) = command();
    if let Command::Cluster(asked) = &command
        && let Some(result) = commands::cluster::run_alone(asked)
    {
        return report(result.map(|()| ExitCode::SUCCESS));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(16)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match command {
        // It has exit codes of its own.
        Command::Doctor(flags) => Ok(runtime.block_on(commands::doctor::run(flags))),
        command => runtime.block_on(run(command, flags)).map(|()| ExitCode::SUCCESS),
    };
    // Whatever still blocks (a hung mount, say) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    report(result)
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// What is to be done, and with which flags. The binary also answers to upstream's names of its components.
fn command() -> (Command, Flags) {
    if called("kubelet") {
        return (Command::Kubelet(Box::new(KubeletArguments::parse().flags)), Flags::new());
    }
    let Some(component) = commands::components::called() else {
        return arguments::read(std::env::args_os().collect());
    };
    let (mut words, _) = arguments::ignored::split(component, std::env::args_os().collect());
    if called(component) {
        words.insert(1, component.into());
    }
    arguments::read(words)
}

/// Whether this process was started under a name.
fn called(name: &str) -> bool {
    let own = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&own).file_name().is_some_and(|own| own == name)
}

async fn run(command: Command, shown: Flags) -> anyhow::Result<()> {
    match command {
        Command::Up(flags) => commands::up::run(*flags, shown).await,
        Command::Node(flags) => commands::node::run(*flags).await,
        Command::Cluster(flags) => commands::cluster::run(flags).await,
        Command::Down(flags) => commands::down::run(flags).await,
        Command::Status(flags) => commands::status::run(flags).await,
        Command::Token(flags) => commands::token::run(flags).await,
        Command::Certs(flags) => commands::certs::run(flags).await,
        Command::Kubeconfig(flags) => commands::kubeconfig::run(flags),
        Command::Kubelet(flags) => commands::kubelet::run(*flags).await,
        Command::Init(flags) => commands::init::run(*flags).await,
        Command::Join(flags) => commands::join::run(*flags).await,
        Command::Config(flags) => commands::config::run(flags).await,
        Command::Reset(flags) => commands::reset::run(flags).await,
        Command::Upgrade(flags) => commands::upgrade::run(*flags).await,
        Command::KubeletKeeper { action: None } => commands::init::keep_kubelet().await,
        Command::KubeletKeeper { action: Some(action) } => commands::init::control_keeper(action).await,
        Command::KubeApiserver(flags) => commands::components::apiserver(*flags, shown).await,
        Command::KubeControllerManager(flags) => commands::components::controller_manager(*flags, shown).await,
        Command::KubeScheduler(flags) => commands::components::scheduler(*flags, shown).await,
        Command::KubeProxy(flags) => commands::components::proxy(*flags).await,
        Command::NetworkAgent(flags) => commands::components::network_agent(*flags).await,
        Command::NetworkReady(flags) => commands::network_ready::run(&flags),
        Command::Dns(flags) => commands::components::dns(*flags).await,
        Command::Image(flags) => commands::image::run(flags).await,
        Command::Doctor(_) => unreachable!("main runs it"),
        Command::Drill(flags) => commands::drill::run(flags).await,
        Command::DemoApp(flags) => commands::demo_app::run(flags).await,
        Command::DemoManager(flags) => commands::demo_manager::run(flags).await,
        Command::Completion(flags) => commands::completion::run(&flags),
        Command::Man(flags) => commands::man::run(&flags),
        Command::Version => commands::version::run(),
    }
}

/// Few threads: the process shares its machine with the pods.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}
