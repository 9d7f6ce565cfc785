//! `kedge doctor` on a simulated cluster of 5,000 nodes and 150,000 pods, on this machine, and on a bundle of a gigabyte.
//!
//! The binary under test looks at the cluster as at any other, over HTTP. Some nodes are silent and some containers crash,
//! so that there is something to find. Invariant: a figure is reported only if the doctor found just that.

mod bundle;
mod cluster;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Arguments;
use crate::figures::{Figure, Report};
use crate::server::{Memory, Process};
use cluster::{Cluster, Simulated};

const CLUSTER: Cluster = Cluster { nodes: 5_000, pods: 150_000, silent_nodes: 20, crashing_pods: 500, events: 20_000 };
/// Long past any goal.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (binary, dir) = (arguments.binary()?, arguments.work_dir()?);
    let simulated = Simulated::start(CLUSTER)?;
    let kubeconfig = dir.path().join("config");
    std::fs::write(&kubeconfig, simulated.kubeconfig())?;
    let mut command = Command::new(&binary);
    command.args(["doctor", "--output", "json", "--kubeconfig"]).arg(&kubeconfig);
    let looked = look(command, dir.path()).await?;
    check(&looked.said)?;
    let what = format!("{} nodes and {} pods looked at", CLUSTER.nodes, CLUSTER.pods);
    let note = format!("{} MB of answers; the simulated server runs beside it", simulated.megabytes());
    report.add(figure(&what, looked.elapsed.as_secs_f64(), "s", note, "goal < 10 s"));
    report.add(figure("the same, peak memory", looked.peak, "MB", String::new(), "goal < 500 MB"));

    let mut command = Command::new(&binary);
    command
        .args(["doctor", "node", "--output", "json", "--node-name", "bench", "--data-dir"])
        .arg(dir.path().join("data"));
    let looked = look(command, dir.path()).await?;
    let is_diagnosis = serde_json::from_str::<Value>(&looked.said).is_ok_and(|said| said["causes"].is_array());
    ensure!(is_diagnosis, "the doctor did not look at this machine: {}", looked.said);
    report.add(figure("this machine looked at", looked.elapsed.as_secs_f64(), "s", String::new(), "goal < 2 s"));
    bundles(&binary, dir.path(), report).await
}

/// A support bundle as a tree of files, and as the archive that people send.
async fn bundles(binary: &Path, dir: &Path, report: &mut Report) -> Result<()> {
    let (tree, archive) = (dir.join("bundle"), dir.join("bundle.tar.gz"));
    let size = bundle::write(&tree)?;
    let packed = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&tree).arg(".").status()?;
    ensure!(packed.success(), "tar cannot pack the bundle");
    for (path, what) in [(&tree, "a bundle's tree"), (&archive, "the same bundle packed")] {
        let mut command = Command::new(binary);
        command.args(["doctor", "bundle", "--output", "json"]).arg(path);
        let looked = look(command, dir).await?;
        let said: Value = serde_json::from_str(&looked.said).with_context(|| looked.said.clone())?;
        let causes = said["causes"].as_array().context("there are no causes")?;
        let crashes = causes.iter().filter(|cause| cause["id"] == "W1").count();
        ensure!(crashes == bundle::CRASHING && causes.len() == crashes, "it found other than the crashes: {said}");
        let note = format!("{size} MB of logs and objects");
        report.add(figure(&format!("{what} looked at"), looked.elapsed.as_secs_f64(), "s", note, "goal < 10 s"));
        report.add(figure("the same, peak memory", looked.peak, "MB", String::new(), "goal < 500 MB"));
    }
    Ok(())
}

fn figure(what: &str, value: f64, unit: &'static str, note: String, compare: &'static str) -> Figure {
    Figure { bench: "doctor", what: what.to_owned(), value, unit, note, compare, ..Figure::default() }
}

struct Looked {
    said: String,
    elapsed: Duration,
    /// Most memory that was resident, in MB, as far as it was seen while the process ran.
    peak: f64,
}

async fn look(command: Command, dir: &Path) -> Result<Looked> {
    let began = Instant::now();
    let mut process = Process::start(command, dir)?;
    let mut peak = 0.0_f64;
    while process.runs()? {
        // It may end in between.
        if let Ok(memory) = Memory::of(process.id()) {
            peak = peak.max(memory.peak);
        }
        if began.elapsed() > PATIENCE {
            bail!("the doctor has not ended after {PATIENCE:?}\n{}", process.log());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Looked { elapsed: began.elapsed(), said: process.output(), peak })
}

/// Every silent node and every container that crashes elsewhere is a cause; those on silent nodes follow from them.
fn check(said: &str) -> Result<()> {
    let said: Value = serde_json::from_str(said).with_context(|| format!("the doctor said no JSON: {said}"))?;
    let causes = said["causes"].as_array().context("there are no causes")?;
    let count = |id: &str| causes.iter().filter(|cause| cause["id"] == id).count();
    let effects = |id: &str| {
        let of_cause = |cause: &Value| cause["explains"].as_array().map_or(0, Vec::len);
        causes.iter().filter(|cause| cause["id"] == id).map(of_cause).sum::<usize>()
    };
    let crashes = count("W1") + effects("E2");
    ensure!(
        count("E2") == CLUSTER.silent_nodes && crashes == CLUSTER.crashing_pods,
        "it found {} of {} silent nodes and {crashes} of {} crashes, and says: {}",
        count("E2"),
        CLUSTER.silent_nodes,
        CLUSTER.crashing_pods,
        said["notSeen"]
    );
    Ok(())
}
