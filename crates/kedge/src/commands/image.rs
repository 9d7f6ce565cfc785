//! `kedge image`.

use anyhow::Result;

use crate::arguments::{ImageCommand, ImageFlags};

pub(crate) async fn run(flags: ImageFlags) -> Result<()> {
    let ImageCommand::Load { data_dir, archive } = flags.command;
    for name in kedge_supervisor::load_image(&data_dir.data_dir, &archive).await? {
        println!("loaded {name}");
    }
    Ok(())
}
