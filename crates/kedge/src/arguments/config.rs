//! Flags of `kedge config`, spelled as kubeadm spells them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct ConfigFlags {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what a file says where nobody says otherwise.
    Print {
        #[command(subcommand)]
        command: PrintCommand,
    },
    /// Check a file: what is wrong in it, and what has no effect.
    Validate {
        /// The file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Convert a file of kubeadm.k8s.io/v1beta3.
    Migrate {
        /// The file.
        #[arg(long, value_name = "FILE")]
        old_config: PathBuf,
        /// Where the new one is written [default: printed].
        #[arg(long, value_name = "FILE")]
        new_config: Option<PathBuf>,
    },
    /// The images that a cluster is made of.
    Images {
        #[command(subcommand)]
        command: ImagesCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrintCommand {
    /// For `kedge init`.
    #[command(name = "init-defaults")]
    Init {
        /// Further documents: KubeletConfiguration, KubeProxyConfiguration.
        #[arg(long, value_name = "KINDS", value_delimiter = ',')]
        component_configs: Vec<String>,
    },
    /// For `kedge join`.
    #[command(name = "join-defaults")]
    Join {
        /// Further documents: KubeletConfiguration, KubeProxyConfiguration.
        #[arg(long, value_name = "KINDS", value_delimiter = ',')]
        component_configs: Vec<String>,
    },
    /// For `kedge reset`.
    #[command(name = "reset-defaults")]
    Reset,
    /// For `kedge upgrade`.
    #[command(name = "upgrade-defaults")]
    Upgrade,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// Print their names.
    List,
    /// Make them, from what is installed on this machine: no registry has them.
    Pull {
        /// Socket of the container runtime [default: a well-known one that answers].
        #[arg(long, value_name = "SOCKET")]
        cri_socket: Option<String>,
    },
}
