//! `kedge token`: the bootstrap tokens of a cluster.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kedge_bootstrap::{
    BootstrapToken, CertificateKey, TokenInfo, TokenSpec, create_token, delete_token, join_command, list_tokens,
    public_key_pins,
};
use kedge_client::client_from_kubeconfig;
use kedge_pki::KubeconfigCluster;
use serde_json::json;

use crate::arguments::{CreateTokenFlags, Output, TokenCommand, TokenFlags};
use crate::output::columns;

pub(crate) async fn run(flags: TokenFlags) -> Result<()> {
    let kubeconfig = &flags.admin.kubeconfig;
    match flags.command {
        TokenCommand::Create(create_flags) => create(kubeconfig, create_flags).await,
        TokenCommand::List { output } => list(kubeconfig, output).await,
        TokenCommand::Delete { tokens } => delete(kubeconfig, &tokens).await,
        TokenCommand::Generate => {
            println!("{}", BootstrapToken::generate());
            Ok(())
        }
    }
}

async fn create(kubeconfig: &Path, flags: CreateTokenFlags) -> Result<()> {
    if flags.certificate_key.is_some() && !flags.print_join_command {
        bail!("cannot use --certificate-key without --print-join-command");
    }
    let token = flags.token.as_deref().map_or_else(|| Ok(BootstrapToken::generate()), str::parse)?;
    let key = flags.certificate_key.as_deref().map(str::parse::<CertificateKey>).transpose()?;
    let spec = TokenSpec {
        token: token.clone(),
        description: flags.description,
        ttl: Some(flags.ttl).filter(|ttl| !ttl.is_zero()),
        usages: flags.usages,
        groups: flags.groups.into_iter().filter(|group| !group.is_empty()).collect(),
    };
    let client = client_from_kubeconfig(kubeconfig).await?;
    create_token(&client, &spec).await?;
    if !flags.print_join_command {
        println!("{token}");
        return Ok(());
    }
    let cluster = KubeconfigCluster::read(kubeconfig).context("failed to get join command")?;
    let pins = public_key_pins(&cluster.authority_pem).map_err(anyhow::Error::msg)?;
    let endpoint = cluster.server.trim_start_matches("https://").trim_end_matches('/');
    println!("{}", join_command(endpoint, &token, &pins, key.is_some(), key.as_ref()));
    Ok(())
}

async fn list(kubeconfig: &Path, output: Output) -> Result<()> {
    let client = client_from_kubeconfig(kubeconfig).await?;
    let (tokens, wrong) = list_tokens(&client).await?;
    wrong.iter().for_each(|why| eprintln!("{why}"));
    let now = Timestamp::now();
    if output == Output::Json {
        for token in &tokens {
            println!("{}", json_of(token));
        }
        return Ok(());
    }
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(tokens.iter().map(|token| row(token, now))).collect();
    print!("{}", columns(&rows));
    Ok(())
}

async fn delete(kubeconfig: &Path, tokens: &[String]) -> Result<()> {
    let ids = tokens.iter().map(|text| BootstrapToken::id_of(text)).collect::<Result<Vec<_>, _>>()?;
    let client = client_from_kubeconfig(kubeconfig).await?;
    for id in ids {
        delete_token(&client, &id).await?;
        println!("bootstrap token {id:?} deleted");
    }
    Ok(())
}

fn json_of(token: &TokenInfo) -> serde_json::Value {
    json!({
        "kind": "BootstrapToken", "apiVersion": "output.kubeadm.k8s.io/v1alpha3", "token": token.token.to_string(),
        "description": token.description, "expires": token.expires.map(|expires| expires.to_string()),
        "usages": token.usages, "groups": token.groups,
    })
}

fn row(token: &TokenInfo, now: Timestamp) -> Vec<String> {
    let or = |text: String, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text };
    let left = token.expires.map(|expires| short_duration(expires.duration_since(now).as_secs()));
    vec![
        token.token.to_string(),
        left.unwrap_or_else(|| "<forever>".to_owned()),
        token.expires.map_or_else(|| "<never>".to_owned(), |expires| expires.to_string()),
        or(token.usages.join(","), "<none>"),
        or(token.description.clone(), "<none>"),
        or(token.groups.join(","), "<none>"),
    ]
}

/// Upstream's short form: one figure.
fn short_duration(seconds: i64) -> String {
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kubeadms() {
        let token = TokenInfo {
            token: "abcdef.0123456789abcdef".parse().unwrap(),
            description: String::new(),
            expires: Some("2026-01-02T00:00:00Z".parse().unwrap()),
            usages: vec!["authentication".to_owned(), "signing".to_owned()],
            groups: Vec::new(),
        };
        let now = "2026-01-01T00:00:01Z".parse().unwrap();
        let expected =
            ["abcdef.0123456789abcdef", "23h", "2026-01-02T00:00:00Z", "authentication,signing", "<none>", "<none>"];
        assert_eq!(row(&token, now), expected);
        assert_eq!(row(&TokenInfo { expires: None, ..token }, now)[1..3], ["<forever>", "<never>"]);
        assert_eq!([59, 60, 3600, 86_400, -5].map(short_duration), ["59s", "1m", "1h", "1d", "<invalid>"]);
    }
}
