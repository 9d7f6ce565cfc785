//! `kedge-fuzz [TARGET...] --seconds N [--seed N]`: each target (all, where none is named) for a time.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kedge_fuzz::{TARGETS, Target, run};

fn main() -> anyhow::Result<ExitCode> {
    let (mut names, mut seconds, mut seed) = (Vec::new(), 60, rand::random());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).context("a number is missing");
        match argument.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            name => names.push(name.to_owned()),
        }
    }
    let mut harmless = true;
    for target in chosen(&names)? {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let findings = root.join("../../target/fuzz");
        let time = Duration::from_secs(seconds);
        match run(target, &root.join("corpus"), &findings, time, seed)? {
            Ok(summary) => {
                println!("{}: {} inputs, {} outcomes, seed {seed}", target.name, summary.inputs, summary.outcomes);
            }
            Err(finding) => {
                harmless = false;
                println!("{}: {}: {}", target.name, finding.harm, finding.file.display());
            }
        }
    }
    Ok(if harmless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| TARGETS.iter().find(|target| target.name == *name);
    names
        .iter()
        .map(|name| match find(name) {
            Some(target) => Ok(target),
            None => {
                let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                bail!("there is no target {name}; there are {}", known.join(", "))
            }
        })
        .collect()
}
