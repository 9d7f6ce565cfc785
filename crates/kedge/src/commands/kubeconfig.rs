//! `kedge kubeconfig user`: a kubeconfig for a further user, on standard output.

use anyhow::{Context, Result};
use kedge_pki::{
    CertificateAuthority, CertificateRequest, Identity, KubeconfigCluster, KubeconfigUser, LeafRequest, PendingIdentity,
};

use crate::arguments::{KubeconfigCommand, KubeconfigFlags, KubeconfigUserFlags};

pub(crate) fn run(flags: KubeconfigFlags) -> Result<()> {
    let KubeconfigCommand::User(flags) = flags.command;
    let cluster = KubeconfigCluster::read(&flags.kubeconfig)?;
    let user = match &flags.token {
        Some(token) => KubeconfigUser::Token(token.clone()),
        None => KubeconfigUser::Embedded(identity(&flags)?),
    };
    let text = kedge_pki::kubeconfig_text("kubernetes", &flags.client_name, &cluster, &user)?;
    print!("{text}");
    Ok(())
}

fn identity(flags: &KubeconfigUserFlags) -> Result<Identity> {
    let dir = &flags.cert_dir;
    let authority = CertificateAuthority::load_files(&dir.join("ca.crt"), &dir.join("ca.key"))
        .context("the cluster's authority is needed to make a certificate")?;
    let groups: Vec<&str> = flags.org.iter().map(String::as_str).collect();
    let subject = LeafRequest::client(&flags.client_name, &groups);
    let pending = PendingIdentity::new(&subject)?;
    let request = CertificateRequest::read(pending.request_pem.as_bytes()).map_err(anyhow::Error::msg)?;
    let request = request.with_subject(&subject);
    let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
    let certificate_pem = authority.sign_request(&request, &usages, flags.validity_period)?;
    Ok(Identity { certificate_pem, key_pem: pending.key_pem })
}
