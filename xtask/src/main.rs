//! The project's only automation. CI and people run the same commands.

mod build;
mod check;
mod clients;
mod codegen;
mod deb;
mod machine;
mod packages;
mod step;
mod suite;
mod up;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  up [KEDGE FLAGS]     installs what is missing, builds kedge, and runs `kedge up --demo`
  test [--ci] [--release] [FILTER]
                       installs what is missing, and runs the checks and every test; with `--release` against the
                       binary as it is released, else against one that is built sooner and checks more
  check                rustfmt, clippy, layers, generated code
  bench [NAME...]      measures start-up, memory, the API server, the scheduler, controllers and more
  clients              fetches the clients of other languages that the tests use
  fuzz [TARGET...] [--seconds N] [--seed N]
                       hostile input for every parser that faces the network, a minute for each where no time is named
  build                builds the static release binary
  deb                  builds the Debian package: the binary, units of systemd, completions, manual
  codegen [--check]    generates (or checks) the code made from upstream's machine-readable descriptions
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let result = match arguments.first().map(String::as_str) {
        Some("up") => up::run(rest),
        Some("test") => suite::test(rest),
        Some("check") => check::run(),
        Some("bench") => suite::bench(rest),
        Some("clients") => clients::ensure().map(|path| println!("{}", path.display())),
        Some("fuzz") => suite::fuzz(rest),
        Some("build") => build::release().map(|path| println!("{}", path.display())),
        Some("deb") => deb::run().map(|path| println!("{}", path.display())),
        Some("codegen") => codegen::run(rest.iter().any(|flag| flag == "--check")),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
