//! What the API server carries: requests of 32 clients and watches, over HTTP/2 and TLS, a connection per client, and what
//! a quiet client has of it beside a noisy one. Then the load of a large cluster.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::memory::{SETTLE, figure};
use super::neighbours;
use crate::Arguments;
use crate::api::Workspace;
use crate::connection::Call;
use crate::figures::{Figure, Report, milliseconds, percentile};
use crate::load::{self, Until};
use crate::objects::{self, GROUP_SIZE};
use crate::server::Server;
use crate::target::Target;
use crate::watchers::{self, Fanout};

/// How long the loads last that write nothing new.
const TIME: Until = Until::Elapsed(Duration::from_secs(5));
const LIST_CLIENTS: u64 = 4;
const WATCHERS: u64 = 100;
const WATCH_WRITERS: u64 = 4;
const UPDATES: u64 = 1000;

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (Some(url), Some(kubeconfig)) = (&arguments.server, &arguments.kubeconfig) else {
        let dir = arguments.work_dir()?;
        let server = Server::start(&arguments.binary()?, dir.path()).await?;
        tokio::time::sleep(SETTLE).await;
        report.add(figure("api", "memory, idle".to_owned(), server.memory()?, "upstream 282 + 46 MB; goal 10x less"));
        measure(arguments, report, &Workspace::create(&server.target.over_http2()).await?, Some(&server)).await?;
        server.stop()?;
        drop(dir);
        return super::fleet::run(arguments, report).await;
    };
    let workspace = Workspace::create(&Target::from_kubeconfig(kubeconfig, Some(url))?.over_http2()).await?;
    let result = measure(arguments, report, &workspace, None).await;
    workspace.remove().await?;
    result
}

async fn measure(
    arguments: &Arguments,
    report: &mut Report,
    workspace: &Workspace,
    server: Option<&Server>,
) -> Result<()> {
    let clients = arguments.clients;
    let written = workspace.create_config_maps(clients, arguments.objects).await?;
    report.add(written.figure("create ConfigMap, 1 KiB", "2,079-2,405/s; goal 5x"));
    let written = workspace.create_pods(clients, arguments.objects).await?;
    report.add(written.figure("create pod", "1,206/s, p99 84 ms; goal 5x"));
    let pods = written.requests;
    ensure!(pods >= GROUP_SIZE, "only {pods} pods were written in time");

    one_by_one(workspace, report, clients, pods).await?;
    lists(workspace, report, arguments, pods).await?;
    fan_out(workspace, report, pods).await?;
    if let Some(server) = server {
        let what = format!("memory, {} ConfigMaps and {pods} pods written, listed, watched", arguments.objects);
        report.add(figure("api", what, server.memory()?, "upstream 1,490 + 371 MB; goal 10x less"));
    }
    neighbours::measure(workspace, report, pods).await?;

    let source = workspace.clone();
    let call = move |number| Call::delete(source.object("pods", number));
    let deleted = load::run(&workspace.target, clients, Until::Requests(pods), call).await?;
    report.add(deleted.figure("delete pod", "934/s; goal 5x"));
    workspace.list_pods("", pods - deleted.requests).await?;
    Ok(())
}

async fn one_by_one(workspace: &Workspace, report: &mut Report, clients: u64, pods: u64) -> Result<()> {
    let source = workspace.clone();
    let call = move |number| Call::get(source.object("pods", scattered(number, pods)));
    let got = load::run(&workspace.target, clients, TIME, call).await?;
    report.add(got.figure("get pod", "3,820/s; goal 5x"));
    let source = workspace.clone();
    let call = move |number| Call::merge_patch(source.object("pods", scattered(number, pods)), objects::patch(number));
    let patched = load::run(&workspace.target, clients, TIME, call).await?;
    report.add(patched.figure("merge-patch pod", "743/s; goal 8x"));
    Ok(())
}

/// Goes through all objects in an order that is not theirs.
fn scattered(number: u64, of: u64) -> u64 {
    number.wrapping_mul(7919) % of
}

async fn lists(workspace: &Workspace, report: &mut Report, arguments: &Arguments, pods: u64) -> Result<()> {
    let listed = workspace.list_pods("", pods).await?;
    let path = workspace.collection("pods");
    let measured = load::run(&workspace.target, LIST_CLIENTS, TIME, move |_| Call::get(path.clone())).await?;
    let mut figure = measured.figure(format!("list {pods} pods"), "4/s, 117 MB/s; goal 10x");
    figure.note.push_str(&format!(", {} bytes a pod", listed.bytes / listed.items.max(1)));
    report.add(figure);

    let of = arguments.objects;
    let members = (0..pods).filter(|&number| objects::group(number, of) == 0).count() as u64;
    workspace.list_pods("?labelSelector=group%3Dg0", members).await?;
    let path = workspace.collection("pods");
    let call =
        move |number| Call::get(format!("{path}?labelSelector=group%3Dg{}", objects::group(scattered(number, of), of)));
    let measured = load::run(&workspace.target, arguments.clients, TIME, call).await?;
    report.add(measured.figure(format!("list by label, {members} of {pods} pods"), "140/s; goal 20x"));
    Ok(())
}

async fn fan_out(workspace: &Workspace, report: &mut Report, pods: u64) -> Result<()> {
    let listed = workspace.list_pods("", pods).await?;
    let fanout = Fanout { watchers: WATCHERS, writers: WATCH_WRITERS, updates: UPDATES, pods };
    let fanned = watchers::run(workspace, fanout, &listed.resource_version).await?;
    report.add(Figure {
        bench: "api",
        what: format!("watch, {WATCHERS} watchers, {UPDATES} updates"),
        value: fanned.per_second(),
        unit: "events/s",
        p50_milliseconds: Some(milliseconds(percentile(&fanned.lags, 0.5))),
        p99_milliseconds: Some(milliseconds(percentile(&fanned.lags, 0.99))),
        megabytes_per_second: Some(fanned.bytes as f64 / 1e6 / fanned.elapsed.as_secs_f64()),
        note: format!("lag from sending the update, {WATCH_WRITERS} writers"),
        compare: "40,000/s, lag p99 406 ms; goal 5x, lag 20x less",
    });
    Ok(())
}
