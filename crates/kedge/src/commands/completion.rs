//! `kedge completion`.

use anyhow::Result;
use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionFlags};

pub(crate) fn run(flags: &CompletionFlags) -> Result<()> {
    clap_complete::generate(flags.shell, &mut Arguments::command(), "kedge", &mut std::io::stdout());
    Ok(())
}
