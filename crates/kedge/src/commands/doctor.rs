//! `kedge doctor`: looks, says what is wrong, and changes nothing unless `--fix` is said.
//!
//! Exit codes: 0 healthy, 1 warnings, 2 failures, 3 it could not look.

pub(crate) mod always;
mod filter;
mod mend;
mod reach;

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kedge_bundle::{Limits, read_bundle, read_text, write_bundle};
use kedge_client::Client;
use kedge_diagnosis::{Diagnosis, Evidence, Severity, Unseen, diagnose};
use kedge_doctor::{NodePlaces, gather_cluster, gather_node};
use kedge_lifecycle::HostLayout;
use kedge_repair::Host;
use kedge_report::{Form, Language, render};

use crate::arguments::{DoctorCollectFlags, DoctorFlags, DoctorForm, DoctorLanguage, DoctorNodeFlags, DoctorPlace};
use crate::output;

const WARNINGS: u8 = 1;
const FAILURES: u8 = 2;
const NOT_SEEN: u8 = 3;
/// Between two looks of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(10);
/// What is read of standard input.
const MOST_PASTED: u64 = 64 << 20;

pub(crate) async fn run(flags: DoctorFlags) -> ExitCode {
    let ended = match &flags.place {
        Some(DoctorPlace::Undo(undo)) => mend::undo(&host(&flags).await, undo, flags.yes),
        Some(DoctorPlace::WatchCluster(watch)) => {
            always::watch(watch, flags.kubeconfig.as_ref()).await.map(|()| ExitCode::SUCCESS)
        }
        Some(DoctorPlace::Manifests(wanted)) => always::manifests(wanted).map(shown),
        Some(DoctorPlace::Schema) => serde_json::to_string_pretty(&kedge_diagnosis::schema())
            .context("the schema")
            .map(|text| shown(text + "\n")),
        _ => report(&flags).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {}", output::chain(&error));
        ExitCode::from(NOT_SEEN)
    })
}

fn shown(text: String) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

/// Looks, mends if that is wanted, and prints what is left.
async fn report(flags: &DoctorFlags) -> Result<ExitCode> {
    if flags.fix {
        return fix(flags).await;
    }
    let mut shown = None;
    loop {
        let Some(evidence) = look(flags).await? else { return Ok(ExitCode::SUCCESS) };
        let is_blind = evidence.items.is_empty();
        let diagnosis = filter::wanted(diagnose(&filter::recent(evidence, flags.since)), flags);
        if !flags.watch {
            let code = print(&diagnosis, flags)?;
            // Silence about nothing at all is no health.
            return Ok(if is_blind { ExitCode::from(NOT_SEEN) } else { code });
        }
        let causes: Vec<_> = diagnosis.causes.iter().map(|cause| (cause.id, cause.subject.clone())).collect();
        if shown.as_ref() != Some(&causes) {
            println!("--- {}", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
            print(&diagnosis, flags)?;
            shown = Some(causes);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn fix(flags: &DoctorFlags) -> Result<ExitCode> {
    let consent = mend::Consent { yes: flags.yes, dry_run: flags.dry_run };
    let host = host(flags).await;
    let mended = match &flags.place {
        None => {
            let (client, server) = reached(flags.kubeconfig.as_ref()).await?;
            let look = async || filter::wanted(diagnose(&gather_cluster(&client, &server).await), flags);
            mend::mend(&host.elsewhere(), look, consent).await?
        }
        Some(DoctorPlace::Node(node)) => {
            if !nix::unistd::geteuid().is_root() {
                bail!("--fix of a machine needs root");
            }
            let places = places(node);
            let look = async || filter::wanted(diagnose(&gather_node(&places).await), flags);
            mend::mend(&host, look, consent).await?
        }
        Some(_) => {
            bail!("--fix mends a cluster, `kedge doctor --fix`, or the machine it runs on, `kedge doctor node --fix`")
        }
    };
    print(&mended, flags)
}

/// This machine, with the cluster of the kubeconfig where there is one.
async fn host(flags: &DoctorFlags) -> Host {
    let (client, server) = match reached(flags.kubeconfig.as_ref()).await {
        Ok((client, server)) => (Some(client), server),
        Err(_) => (None, String::new()),
    };
    Host::new(HostLayout::default()).with_access(reach::Reach::new(client, server))
}

/// The evidence to diagnose; none where it was to be written only.
async fn look(flags: &DoctorFlags) -> Result<Option<Evidence>> {
    Ok(Some(match &flags.place {
        Some(DoctorPlace::Node(node)) => gather_node(&places(node)).await,
        Some(DoctorPlace::Bundle(bundle)) => files(&bundle.path)?,
        Some(DoctorPlace::Collect(wanted)) => {
            collect(wanted, flags.kubeconfig.as_ref()).await?;
            return Ok(None);
        }
        Some(DoctorPlace::Undo(_) | DoctorPlace::WatchCluster(_) | DoctorPlace::Manifests(_) | DoctorPlace::Schema) => {
            return Ok(None);
        }
        None => cluster(flags.kubeconfig.as_ref()).await?,
    }))
}

fn files(path: &Path) -> Result<Evidence> {
    let now = Timestamp::now();
    if path != Path::new("-") {
        let evidence = read_bundle(path, now, Limits::default());
        let evidence = evidence.with_context(|| format!("{} cannot be read", path.display()))?;
        if evidence.items.is_empty() {
            bail!("nothing in {} is known: no objects, no tables, no logs, no files of a node", path.display());
        }
        return Ok(evidence);
    }
    if std::io::stdin().is_terminal() {
        eprintln!("Paste what `kubectl get`, `kubectl describe`, events or logs said, then press Ctrl-D.");
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(MOST_PASTED).read_to_end(&mut bytes).context("standard input cannot be read")?;
    let text = String::from_utf8_lossy(&bytes);
    if text.trim().is_empty() {
        bail!("standard input is empty: paste what `kubectl get`, `kubectl describe`, events or logs said");
    }
    Ok(read_text(&text, now))
}

/// Writes a bundle of what can be seen; half of it is better than none.
async fn collect(flags: &DoctorCollectFlags, kubeconfig: Option<&PathBuf>) -> Result<()> {
    let mut evidence = gather_node(&places(&flags.node)).await;
    match cluster(kubeconfig).await {
        Ok(seen) => {
            evidence.items.extend(seen.items);
            evidence.unseen.extend(seen.unseen);
        }
        Err(error) => {
            let why = output::chain(&error).replace('\n', ";");
            evidence.unseen.push(Unseen { what: "the cluster".to_owned(), why });
        }
    }
    let now = evidence.gathered.strftime("%Y%m%d-%H%M%S");
    let path = flags.file.clone().unwrap_or_else(|| PathBuf::from(format!("kedge-bundle-{now}.tar.gz")));
    // Not over another bundle, and for nobody else: what is no secret is still nobody's business.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("{} cannot be made; name another file with --file", path.display()))?;
    let (items, unseen) = (evidence.items.len(), evidence.unseen.clone());
    if let Err(error) = write_bundle(evidence, flags.max_size << 20, file) {
        // Half a bundle would be taken for a whole one.
        let _ = std::fs::remove_file(&path);
        return Err(error).with_context(|| format!("{} was not written", path.display()));
    }
    println!("{}: {items} items; look at it with: kedge doctor bundle {}", path.display(), path.display());
    for unseen in unseen {
        println!("  not seen: {}: {}", unseen.what, unseen.why);
    }
    Ok(())
}

async fn cluster(kubeconfig: Option<&PathBuf>) -> Result<Evidence> {
    let (client, server) = reached(kubeconfig).await?;
    Ok(gather_cluster(&client, &server).await)
}

/// The cluster of a kubeconfig, and what a person calls it by.
async fn reached(kubeconfig: Option<&PathBuf>) -> Result<(Client, String)> {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let variable = std::env::var("KUBECONFIG").ok();
    let path = kubeconfig.cloned().unwrap_or_else(|| kedge_pki::default_kubeconfig_path(variable.as_deref(), &home));
    let client = kedge_client::client_from_kubeconfig(&path).await.context(
        "no cluster to look at; name a kubeconfig with --kubeconfig, or look at this machine with `kedge doctor node`",
    )?;
    Ok((client, kedge_client::server_of_kubeconfig(&path).unwrap_or_default()))
}

fn places(flags: &DoctorNodeFlags) -> NodePlaces {
    let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut places = NodePlaces::usual(flags.node_name.clone().unwrap_or_else(host), flags.data_dir.data_dir.clone());
    places.manifests.extend(flags.pod_manifest_path.clone());
    places.runtime = flags.container_runtime_endpoint.clone();
    places.api_server = flags.api_server;
    places
}

fn print(diagnosis: &Diagnosis, flags: &DoctorFlags) -> Result<ExitCode> {
    let form = match flags.output {
        DoctorForm::Text => {
            let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Form::Text { colour: is_wanted && std::io::stdout().is_terminal() }
        }
        DoctorForm::Json => Form::Json,
        DoctorForm::Yaml => Form::Yaml,
        DoctorForm::Markdown => Form::Markdown,
        DoctorForm::Sarif => Form::Sarif,
        DoctorForm::Junit => Form::Junit,
        DoctorForm::Html => Form::Html,
    };
    print!("{}", render(diagnosis, form, language(flags.lang))?);
    Ok(match diagnosis.severity() {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
        Some(Severity::Failure) => ExitCode::from(FAILURES),
    })
}

fn language(wanted: Option<DoctorLanguage>) -> Language {
    match wanted {
        Some(DoctorLanguage::En) => Language::English,
        Some(DoctorLanguage::Ko) => Language::Korean,
        None => {
            let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set);
            Language::of_locale(&locale.unwrap_or_default())
        }
    }
}
