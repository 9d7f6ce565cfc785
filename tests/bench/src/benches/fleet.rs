//! A large cluster as the API server sees it: many pods, nodes that renew their leases, informers that list and watch all.
//!
//! Then the memory that a pod takes, and a restart with all of it on disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::memory::figure;
use crate::Arguments;
use crate::api::Workspace;
use crate::connection::{Call, Connection};
use crate::figures::{Figure, Report, milliseconds, percentile};
use crate::load::{self, Until, micros};
use crate::objects;
use crate::server::Server;
use crate::watchers::{self, Fanout};

/// How often a node renews its lease.
const PERIOD: Duration = Duration::from_secs(10);

const INFORMERS: u64 = 20;
const CONNECTIONS: u64 = 32;

/// How long writing all pods may take, and listing them by all informers.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (dir, binary) = (arguments.work_dir()?, arguments.binary()?);
    let server = Server::start(&binary, dir.path()).await?;
    let workspace = Workspace::create(&server.target.over_http2()).await?;
    let before = server.memory()?;
    let until = Until::Within(arguments.fleet_pods, PATIENCE);
    let pods = workspace.create_pods_until(arguments.clients, arguments.fleet_pods, until).await?.requests;
    let after = server.memory()?;
    let mut memory = figure("api", "memory per 10,000 pods".to_owned(), after, "");
    memory.value = (after.resident - before.resident) * 10_000.0 / pods.max(1) as f64;
    memory.note = format!("{pods} pods with the caches of scheduler and controllers; {}", memory.note);
    report.add(memory);
    let nodes = workspace.create_leases(arguments.clients, arguments.fleet_nodes).await?.requests;
    ensure!(pods > 0 && nodes > 0, "neither pods nor leases were written in time");
    informers(&workspace, report, pods, nodes).await?;
    let memory = server.memory()?;
    report.add(figure("api", format!("memory, {pods} pods and {nodes} nodes, {INFORMERS} informers"), memory, ""));
    server.stop()?;
    let server = Server::start(&binary, dir.path()).await?;
    report.add(Figure {
        bench: "api",
        what: format!("restart to /readyz, {} objects on disk", pods + nodes),
        value: server.ready_after.as_secs_f64(),
        unit: "s",
        note: format!("{:.2} s of processor time", server.cpu.as_secs_f64()),
        ..Figure::default()
    });
    server.stop()
}

/// Informers list and watch while nodes renew.
async fn informers(workspace: &Workspace, report: &mut Report, pods: u64, nodes: u64) -> Result<()> {
    let over = CancellationToken::new();
    let renewing = tokio::spawn(renew(workspace.clone(), nodes, over.clone()));
    let began = Instant::now();
    let path = format!("{}?resourceVersion=0", workspace.collection("pods"));
    let until = Until::Within(INFORMERS, PATIENCE);
    let listed = load::run(&workspace.target, INFORMERS, until, move |_| Call::get(path.clone())).await?;
    ensure!(listed.requests == INFORMERS, "only {} of {INFORMERS} informers have their list", listed.requests);
    report.add(Figure {
        bench: "api",
        what: format!("{INFORMERS} informers list {pods} pods at once"),
        value: began.elapsed().as_secs_f64(),
        unit: "s",
        megabytes_per_second: Some(listed.bytes as f64 / 1e6 / listed.elapsed.as_secs_f64()),
        note: format!("while {nodes} nodes renew leases every 10 s"),
        ..Figure::default()
    });
    let from = workspace.list("pods", "?limit=1").await?.resource_version;
    let fanout = Fanout { watchers: INFORMERS, writers: 4, updates: 2000, pods };
    let fanned = watchers::run(workspace, fanout, &from).await?;
    report.add(Figure {
        bench: "api",
        what: format!("{INFORMERS} informers watch {pods} pods, 2,000 updates"),
        value: fanned.per_second(),
        unit: "events/s",
        p50_milliseconds: Some(milliseconds(percentile(&fanned.lags, 0.5))),
        p99_milliseconds: Some(milliseconds(percentile(&fanned.lags, 0.99))),
        note: "lag from sending the update".to_owned(),
        ..Figure::default()
    });
    // At least one whole period with nothing else going on.
    tokio::time::sleep(PERIOD).await;
    over.cancel();
    let renewed = renewing.await.context("the nodes ended")??;
    report.add(Figure {
        bench: "api",
        what: format!("{nodes} nodes renew leases every 10 s"),
        value: renewed.len() as f64 / began.elapsed().as_secs_f64(),
        unit: "/s",
        p50_milliseconds: Some(milliseconds(percentile(&renewed, 0.5))),
        p99_milliseconds: Some(milliseconds(percentile(&renewed, 0.99))),
        note: "from the time at which each was due; informers list and watch meanwhile".to_owned(),
        ..Figure::default()
    });
    Ok(())
}

/// Renews all leases, each once in a period, until it is over; the latencies, sorted.
async fn renew(workspace: Workspace, nodes: u64, over: CancellationToken) -> Result<Vec<u32>> {
    let mut tasks = JoinSet::new();
    for first in 0..CONNECTIONS.min(nodes) {
        let mut connection = Connection::open(&workspace.target).await?;
        let (path, over) = (workspace.leases(), over.clone());
        tasks.spawn(async move {
            let mine: Vec<u64> = (first..nodes).step_by(CONNECTIONS as usize).collect();
            let pace = PERIOD / u32::try_from(mine.len()).unwrap_or(u32::MAX);
            let mut latencies = Vec::new();
            let mut due = Instant::now() + pace.mul_f64(first as f64 / CONNECTIONS as f64);
            for (number, node) in mine.iter().cycle().enumerate() {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = over.cancelled() => break,
                }
                let path = format!("{path}/{}", objects::name(*node));
                connection.send(&Call::merge_patch(path, objects::renewal(number as u64 + 1))).await?;
                latencies.push(micros(due.elapsed()));
                due += pace;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}
