//! `kedge join`.

use anyhow::Result;
use kedge_supervisor::{Join, JoinSettings};

use crate::arguments::JoinFlags;
use crate::commands::init::on_one_line;
use crate::output::start_logging;

pub(crate) async fn run(flags: JoinFlags) -> Result<()> {
    start_logging(false);
    let settings = JoinSettings::new(flags.asked())?;
    Join::new(settings, &|line| println!("{line}")).run().await.map_err(|error| on_one_line(&error))
}
