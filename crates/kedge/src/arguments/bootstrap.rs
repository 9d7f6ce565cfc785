//! Flags of the commands about tokens, certificates and kubeconfigs, as kubeadm spells them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

#[derive(Debug, Args)]
pub(crate) struct AdminKubeconfig {
    /// The kubeconfig with which the cluster is reached.
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf", global = true)]
    pub(crate) kubeconfig: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TokenFlags {
    #[command(flatten)]
    pub(crate) admin: AdminKubeconfig,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create bootstrap tokens on the server.
    Create(CreateTokenFlags),
    /// List bootstrap tokens on the server.
    List {
        /// How to report.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Delete bootstrap tokens on the server.
    Delete {
        /// Tokens, or their ids.
        #[arg(value_name = "TOKEN-VALUE", required = true)]
        tokens: Vec<String>,
    },
    /// Generate and print a bootstrap token, but do not create it on the server.
    Generate,
}

#[derive(Debug, Args)]
pub(crate) struct CreateTokenFlags {
    /// The token [default: a random one].
    pub(crate) token: Option<String>,
    /// How long the token is good (1s, 2m, 3h); 0 for ever.
    #[arg(long, value_name = "DURATION", default_value = "24h0m0s", value_parser = duration)]
    pub(crate) ttl: std::time::Duration,
    /// What the token is for.
    #[arg(long, value_name = "USAGES", value_delimiter = ',', default_value = "signing,authentication")]
    pub(crate) usages: Vec<String>,
    /// Groups of whoever shows the token.
    #[arg(
        long,
        value_name = "GROUPS",
        value_delimiter = ',',
        default_value = "system:bootstrappers:kubeadm:default-node-token"
    )]
    pub(crate) groups: Vec<String>,
    /// What the token is used for, for people.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Print the whole command with which a node joins.
    #[arg(long)]
    pub(crate) print_join_command: bool,
    /// With `--print-join-command`: print the command with which a control plane joins.
    #[arg(long, value_name = "KEY")]
    pub(crate) certificate_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CertsFlags {
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Show until when certificates are good.
    CheckExpiration {
        #[command(flatten)]
        dirs: CertDirs,
        /// How to report.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Renew certificates, whatever is left of their lives.
    Renew {
        #[command(flatten)]
        dirs: CertDirs,
        /// `all`, or the name of one as `check-expiration` shows it.
        name: String,
    },
    /// Replace the cluster's authority by another one while everything runs, step by step: stage, switch, finish.
    RotateCa {
        #[command(flatten)]
        dirs: CertDirs,
        /// Go on without nodes that have not followed the step before.
        #[arg(long)]
        force: bool,
        /// The key that encrypts the new authority on its way to further control planes.
        #[arg(long, value_name = "KEY")]
        certificate_key: Option<String>,
        /// What to do.
        #[arg(value_enum)]
        step: RotateCaStep,
    },
    /// Generate and print a key that encrypts a control plane's certificates.
    CertificateKey,
    /// Write a certificate request for each certificate that is there, for an authority that is kept elsewhere.
    GenerateCsr {
        #[command(flatten)]
        dirs: CertDirs,
        /// Directory for the requests and their new keys.
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
    },
}

/// The steps of `kedge certs rotate-ca`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RotateCaStep {
    /// Show where a rotation stands, and which nodes have followed.
    Status,
    /// Make a new authority, and let everybody trust it beside the old one.
    Stage,
    /// Let the new authority sign.
    Switch,
    /// Trust the old authority no more.
    Finish,
    /// Take back what was staged.
    Abort,
    /// Put the new authority into the cluster for two hours, encrypted, for further control planes.
    Upload,
    /// On a further control plane: take the new authority from there.
    Follow,
}

#[derive(Debug, Args)]
pub(crate) struct CertDirs {
    /// Directory of the certificates.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/pki")]
    pub(crate) cert_dir: PathBuf,
    /// Directory of the kubeconfigs.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes")]
    pub(crate) kubeconfig_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigFlags {
    #[command(subcommand)]
    pub(crate) command: KubeconfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KubeconfigCommand {
    /// Print a kubeconfig for a further user.
    User(KubeconfigUserFlags),
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigUserFlags {
    /// The user's name.
    #[arg(long, value_name = "NAME")]
    pub(crate) client_name: String,
    /// The user's groups.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pub(crate) org: Vec<String>,
    /// A token to put in, in place of a certificate.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// How long the certificate is good.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = duration)]
    pub(crate) validity_period: std::time::Duration,
    /// Directory of the certificates.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/pki")]
    pub(crate) cert_dir: PathBuf,
    /// The kubeconfig that says where the cluster is.
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf")]
    pub(crate) kubeconfig: PathBuf,
}

/// Go's notation of durations, to the second: `1h30m`, `90s`, `0`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&digits| digits > 0).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let factor = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(factor).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(std::time::Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(duration(text).ok().map(|time| time.as_secs()), expected);
        check("24h0m0s", Some(86_400));
        check("1h30m", Some(5400));
        check("90s", Some(90));
        check("0", Some(0));
        for wrong in ["", "1", "h", "1d", "-1h", "1h 2m"] {
            check(wrong, None);
        }
    }
}
