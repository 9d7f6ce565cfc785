//! `kedge man`: the manual, made from the same words as `--help`. Packages are built with it.

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::arguments::{Arguments, ManFlags};

pub(crate) fn run(flags: &ManFlags) -> Result<()> {
    let directory = &flags.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(Arguments::command(), directory)
        .with_context(|| format!("cannot write the manual into {}", directory.display()))
}
