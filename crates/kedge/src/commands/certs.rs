//! `kedge certs`: the certificates of a control plane in kubeadm's layout.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kedge_bootstrap::{CertificateKey, renewal_command};
use kedge_lifecycle::KUBELET_DIR;
use kedge_pki::{
    CertificateDirs, CertificateFacts, KNOWN_AUTHORITIES, KNOWN_CERTIFICATES, KnownCertificate, PendingIdentity,
    Renewed, write_private, write_public,
};
use kedge_supervisor::{AuthorityRotation, RotationStep};
use serde_json::{Value, json};

use crate::arguments::{CertDirs, CertsCommand, CertsFlags, Output, RotateCaStep};
use crate::commands::init::on_one_line;
use crate::output::{columns, start_logging};

pub(crate) async fn run(flags: CertsFlags) -> Result<()> {
    match flags.command {
        CertsCommand::CheckExpiration { dirs, output } => check(&directories(dirs), output),
        CertsCommand::Renew { dirs, name } => renew(&directories(dirs), &name),
        CertsCommand::RotateCa { dirs, force, certificate_key, step } => {
            let key = certificate_key.map(|text| text.parse()).transpose()?;
            rotate(directories(dirs), force, key, step).await
        }
        CertsCommand::CertificateKey => {
            println!("{}", CertificateKey::generate()?);
            Ok(())
        }
        CertsCommand::GenerateCsr { dirs, output_dir } => generate(&directories(dirs), &output_dir),
    }
}

async fn rotate(dirs: CertificateDirs, force: bool, key: Option<CertificateKey>, step: RotateCaStep) -> Result<()> {
    start_logging(false);
    let rotation = AuthorityRotation::new(dirs, force, &|line| println!("{line}")).with_certificate_key(key);
    let step = match step {
        RotateCaStep::Status => return rotation.status().await.map_err(|error| on_one_line(&error)),
        RotateCaStep::Stage => RotationStep::Stage,
        RotateCaStep::Switch => RotationStep::Switch,
        RotateCaStep::Finish => RotationStep::Finish,
        RotateCaStep::Abort => RotationStep::Abort,
        RotateCaStep::Upload => RotationStep::Upload,
        RotateCaStep::Follow => RotationStep::Follow,
    };
    rotation.take(step).await.map_err(|error| on_one_line(&error))
}

fn directories(dirs: CertDirs) -> CertificateDirs {
    CertificateDirs { kubernetes: dirs.kubeconfig_dir, pki: dirs.cert_dir }
}

/// The certificates of a control plane whose etcd is elsewhere, or that has none, are not missing.
fn certificates(dirs: &CertificateDirs) -> impl Iterator<Item = KnownCertificate> {
    let has_etcd = dirs.pki.join("etcd").exists();
    KNOWN_CERTIFICATES.into_iter().filter(move |known| known.authority != "etcd-ca" || has_etcd)
}

/// A line of the table.
struct Line {
    name: &'static str,
    facts: Option<CertificateFacts>,
    authority: Option<&'static str>,
    is_external: bool,
}

fn check(dirs: &CertificateDirs, output: Output) -> Result<()> {
    let has_etcd = dirs.pki.join("etcd").exists();
    let leaves = certificates(dirs).map(|known| {
        let is_external = known.signer().is_external(dirs);
        Ok(Line { name: known.name, facts: known.facts(dirs)?, authority: Some(known.authority), is_external })
    });
    let leaves = leaves.collect::<Result<Vec<_>>>()?;
    let authorities = KNOWN_AUTHORITIES.into_iter().filter(|known| known.name != "etcd-ca" || has_etcd).map(|known| {
        Ok(Line { name: known.name, facts: known.facts(dirs)?, authority: None, is_external: known.is_external(dirs) })
    });
    let authorities = authorities.collect::<Result<Vec<_>>>()?;
    let now = Timestamp::now();
    if output == Output::Json {
        let document = json!({
            "kind": "CertificateExpirationInfo", "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
            "certificates": leaves.iter().map(|line| line.json(now)).collect::<Vec<_>>(),
            "certificateAuthorities": authorities.iter().map(|line| line.json(now)).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    let head = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
    let mut rows =
        vec![head(&["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"])];
    rows.extend(leaves.iter().map(|line| line.row(now)));
    print!("{}", columns(&rows));
    let mut rows = vec![head(&["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"])];
    rows.extend(authorities.iter().map(|line| line.row(now)));
    print!("\n{}", columns(&rows));
    for line in advice(dirs, &leaves, now) {
        println!("\n{line}");
    }
    Ok(())
}

/// What mends the certificates that have expired: one command for those of a control plane, one for the node's own.
fn advice(dirs: &CertificateDirs, leaves: &[Line], now: Timestamp) -> Vec<String> {
    let has_expired = |facts: &Option<CertificateFacts>| facts.as_ref().is_some_and(|facts| facts.has_expired(now));
    let over: Vec<&Line> = leaves.iter().filter(|line| has_expired(&line.facts)).collect();
    let mut lines = Vec::new();
    if over.iter().any(|line| !line.is_external) {
        lines.push(
            "Certificates have expired: run `kedge certs renew all` here, or start the kubelet, which does the same"
                .to_owned(),
        );
    }
    if over.iter().any(|line| line.is_external) {
        lines.push(
            "Certificates have expired whose authority is kept elsewhere: run `kedge certs generate-csr` here, have the \
             requests signed there, and put the certificates in place of these"
                .to_owned(),
        );
    }
    let kubelet = dirs.kubernetes.join("kubelet.conf");
    let shown = kedge_pki::kubeconfig_certificate(&kubelet).ok().flatten();
    if shown.is_some_and(|pem| CertificateFacts::read(&pem).is_ok_and(|facts| facts.has_expired(now))) {
        lines.push(match dirs.pki.join("ca.key").exists() {
            true => {
                "The node's own client certificate has expired: the kubelet makes another one when it starts".to_owned()
            }
            false => format!(
                "The node's own client certificate has expired: run `{}` on this machine",
                renewal_command(&kubelet, Path::new(KUBELET_DIR))
            ),
        });
    }
    lines
}

impl Line {
    fn seconds_left(&self, now: Timestamp) -> i64 {
        self.facts.as_ref().map_or(0, |facts| facts.not_after.duration_since(now).as_secs())
    }

    fn row(&self, now: Timestamp) -> Vec<String> {
        let Some(facts) = &self.facts else { return vec![format!("!MISSING! {}", self.name)] };
        let external = if self.is_external { "yes" } else { "no" };
        let mut row = vec![
            self.name.to_owned(),
            facts.not_after.strftime("%b %d, %Y %H:%M UTC").to_string(),
            kedge_kinds::human_duration(self.seconds_left(now)),
        ];
        row.extend(self.authority.map(str::to_owned));
        row.push(format!("{external:<8}"));
        row
    }

    fn json(&self, now: Timestamp) -> Value {
        match &self.facts {
            None => json!({"name": self.name, "missing": true}),
            Some(facts) => json!({
                "name": self.name, "expirationDate": facts.not_after.to_string(),
                "residualTime": self.seconds_left(now), "caName": self.authority, "externallyManaged": self.is_external,
            }),
        }
    }
}

fn renew(dirs: &CertificateDirs, name: &str) -> Result<()> {
    let chosen: Vec<KnownCertificate> = match name {
        "all" => certificates(dirs).collect(),
        name => match KnownCertificate::find(name) {
            Some(known) => vec![known],
            None => {
                let names: Vec<&str> = KNOWN_CERTIFICATES.iter().map(|known| known.name).collect();
                bail!("{name:?} is no certificate of a control plane; there are: all, {}", names.join(", "));
            }
        },
    };
    for known in chosen {
        let renewed = known.renew(dirs).with_context(|| format!("failed to renew certificate {}", known.name))?;
        let long_name = known.long_name;
        match renewed {
            Renewed::Yes => println!("{long_name} renewed"),
            Renewed::Missing => println!("MISSING! {long_name}"),
            Renewed::External => println!("Detected external {}, {long_name} can't be renewed", known.authority),
        }
    }
    if name == "all" {
        // DIVERGES: upstream's components have to be restarted; etcd, which is upstream's own, reads its leaves itself.
        println!(
            "\nDone renewing certificates. Running components take them up by themselves: nothing has to be restarted."
        );
    }
    Ok(())
}

fn generate(dirs: &CertificateDirs, output: &std::path::Path) -> Result<()> {
    for known in certificates(dirs) {
        let Some(facts) = known.facts(dirs)? else {
            println!("MISSING! {}", known.long_name);
            continue;
        };
        let pending = PendingIdentity::new(&known.request(&facts))?;
        write_private(&output.join(format!("{}.key", known.name)), pending.key_pem.as_bytes())?;
        write_public(&output.join(format!("{}.csr", known.name)), pending.request_pem.as_bytes())?;
        println!("{} and its request written to {}", known.name, output.display());
    }
    Ok(())
}
