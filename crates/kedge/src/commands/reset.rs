//! `kedge reset`: takes off a machine what `kedge init` and `kedge join` put on it.

use std::io::{BufRead, Write};

use anyhow::{Result, bail};
use kedge_supervisor::ResetOptions;

use crate::arguments::ResetFlags;
use crate::output::start_logging;

pub(crate) async fn run(flags: ResetFlags) -> Result<()> {
    start_logging(false);
    if !flags.force && !flags.dry_run {
        println!("[reset] WARNING: Changes made to this host by 'kedge init' or 'kedge join' will be reverted.");
        print!("[reset] Are you sure you want to proceed? [y/N]: ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            bail!("aborted reset operation");
        }
    }
    let options =
        ResetOptions { dry_run: flags.dry_run, certificates_dir: flags.cert_dir, cri_socket: flags.cri_socket };
    Ok(kedge_supervisor::reset(&options, &|line| println!("{line}")).await?)
}
