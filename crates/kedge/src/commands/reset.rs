//! `kedge reset`: takes off a machine what `kedge init` and `kedge join` put on it.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use kedge_supervisor::{CERTIFICATES_DIR, ResetConfiguration, ResetOptions};

use crate::arguments::ResetFlags;
use crate::output::start_logging;

pub(crate) async fn run(flags: ResetFlags) -> Result<()> {
    start_logging(false);
    let flags = with_file(flags)?;
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
    let options = ResetOptions {
        dry_run: flags.dry_run,
        certificates_dir: flags.cert_dir.unwrap_or_else(|| CERTIFICATES_DIR.into()),
        cri_socket: flags.cri_socket,
        cleanup_tmp_dir: flags.cleanup_tmp_dir,
    };
    Ok(kedge_supervisor::reset(&options, &|line| println!("{line}")).await?)
}

/// Flags win over the file.
fn with_file(mut flags: ResetFlags) -> Result<ResetFlags> {
    let Some(path) = &flags.config else { return Ok(flags) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (file, without_effect) = ResetConfiguration::read(&text)?;
    for field in without_effect {
        println!("[config] WARNING: {field} has no effect here");
    }
    flags.force |= file.force;
    flags.dry_run |= file.dry_run;
    flags.cleanup_tmp_dir |= file.cleanup_tmp_dir;
    let named = |text: String| (!text.is_empty()).then_some(text);
    flags.cert_dir = flags.cert_dir.or(named(file.certificates_dir).map(Into::into));
    flags.cri_socket = flags.cri_socket.or(named(file.cri_socket));
    Ok(flags)
}
