//! `kedge doctor`: looks, says what is wrong, and changes nothing.
//!
//! Exit codes: 0 healthy, 1 warnings, 2 failures, 3 it could not look.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kedge_diagnosis::{Diagnosis, Evidence, Severity, diagnose};
use kedge_doctor::{NodePlaces, gather_cluster, gather_node, render};

use crate::arguments::{DoctorFlags, DoctorNodeFlags, DoctorPlace, Output};
use crate::output;

const WARNINGS: u8 = 1;
const FAILURES: u8 = 2;
const NOT_SEEN: u8 = 3;

pub(crate) async fn run(flags: DoctorFlags) -> ExitCode {
    let evidence = match &flags.place {
        Some(DoctorPlace::Node(node)) => Ok(gather_node(&places(node)).await),
        None => cluster(flags.kubeconfig.as_ref()).await,
    };
    let printed = evidence.and_then(|evidence| print(&diagnose(&evidence), flags.output));
    match printed {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::from(NOT_SEEN)
        }
    }
}

async fn cluster(kubeconfig: Option<&PathBuf>) -> Result<Evidence> {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let variable = std::env::var("KUBECONFIG").ok();
    let path = kubeconfig.cloned().unwrap_or_else(|| kedge_pki::default_kubeconfig_path(variable.as_deref(), &home));
    let client = kedge_client::client_from_kubeconfig(&path).await.context(
        "no cluster to look at; name a kubeconfig with --kubeconfig, or look at this machine with `kedge doctor node`",
    )?;
    let server = kedge_client::server_of_kubeconfig(&path).unwrap_or_default();
    Ok(gather_cluster(&client, &server).await)
}

fn places(flags: &DoctorNodeFlags) -> NodePlaces {
    let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut places = NodePlaces::usual(flags.node_name.clone().unwrap_or_else(host), flags.data_dir.data_dir.clone());
    places.manifests.extend(flags.pod_manifest_path.clone());
    places.runtime = flags.container_runtime_endpoint.clone();
    places.api_server = flags.api_server;
    places
}

fn print(diagnosis: &Diagnosis, form: Output) -> Result<ExitCode> {
    match form {
        Output::Text => print!("{}", render(diagnosis)),
        Output::Json => println!("{}", serde_json::to_string_pretty(diagnosis)?),
    }
    Ok(match diagnosis.severity() {
        None => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
        Some(Severity::Failure) => ExitCode::from(FAILURES),
    })
}
