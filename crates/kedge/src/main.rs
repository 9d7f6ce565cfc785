//! The `kedge` command: flags and output. The work is in the crates below.

mod arguments;
mod commands;
mod output;
mod pause;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    // The sandbox image is this binary under another name; it must start without a runtime, in next to no memory.
    if pause::is_asked_for() {
        return pause::run();
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
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
    let result = runtime.block_on(run(arguments));
    // Whatever still blocks (a hung mount, say) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Up(flags) => commands::up::run(flags).await,
        Command::Down(flags) => commands::down::run(flags).await,
        Command::Status(flags) => commands::status::run(flags).await,
        Command::Image(flags) => commands::image::run(flags).await,
        Command::DemoApp(flags) => commands::demo_app::run(flags).await,
        Command::Version => commands::version::run(),
    }
}

/// Few threads: the process shares its machine with the pods.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}
