//! `kedge config`: the files that `init` and `join` read, and the images of a cluster.

use std::path::Path;

use anyhow::{Context, Result};
use kedge_supervisor::{
    SystemImages, init_defaults, join_defaults, make_system_images, migrate, reset_defaults, runtime_socket,
    upgrade_defaults, validate,
};

use crate::arguments::{ConfigCommand, ConfigFlags, ImagesCommand, PrintCommand};
use crate::output::start_logging;

pub(crate) async fn run(flags: ConfigFlags) -> Result<()> {
    start_logging(false);
    match flags.command {
        ConfigCommand::Print { command: PrintCommand::Init { component_configs } } => {
            print!("{}", init_defaults(&component_configs)?);
        }
        ConfigCommand::Print { command: PrintCommand::Join { component_configs } } => {
            print!("{}", join_defaults(&component_configs)?);
        }
        ConfigCommand::Print { command: PrintCommand::Reset } => print!("{}", reset_defaults()),
        ConfigCommand::Print { command: PrintCommand::Upgrade } => print!("{}", upgrade_defaults()),
        ConfigCommand::Validate { config } => {
            for field in validate(&read(&config)?)? {
                eprintln!("[config] WARNING: {field} has no effect here");
            }
            println!("ok");
        }
        ConfigCommand::Migrate { old_config, new_config } => {
            let text = migrate(&read(&old_config)?)?;
            match new_config {
                None => print!("{text}"),
                Some(path) => {
                    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
        ConfigCommand::Images { command } => images(command).await?,
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

async fn images(command: ImagesCommand) -> Result<()> {
    let images = SystemImages::of_machine(None);
    let has_etcd = images.has_etcd();
    let word = match command {
        ImagesCommand::List => "",
        ImagesCommand::Pull { cri_socket } => {
            make_system_images(runtime_socket(cri_socket.as_deref()).await, has_etcd).await?;
            "[config/images] Made "
        }
    };
    println!("{word}{}", images.kedge);
    if has_etcd {
        println!("{word}{}", images.etcd);
    }
    Ok(())
}
