//! Resident memory of the control plane: idle, and after objects were written, listed and watched.

use std::time::Duration;

use anyhow::Result;

use crate::Arguments;
use crate::api::Workspace;
use crate::figures::{Figure, Report};
use crate::server::{Memory, Server};
use crate::watchers::{self, Fanout};

/// After this a process that nobody asks anything is idle.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let dir = arguments.work_dir()?;
    let server = Server::start(&arguments.binary()?, dir.path()).await?;
    tokio::time::sleep(SETTLE).await;
    report.add(figure(
        "memory",
        "control plane, idle".to_owned(),
        server.memory()?,
        "upstream 282 + 46 MB; goal < 40 MB",
    ));

    let workspace = Workspace::create(&server.target).await?;
    let config_maps = workspace.create_config_maps(arguments.clients, arguments.objects).await?.requests;
    let pods = workspace.create_pods(arguments.clients, arguments.objects).await?.requests;
    let what = format!("control plane, {config_maps} ConfigMaps and {pods} pods written");
    report.add(figure("memory", what, server.memory()?, ""));

    workspace.list("configmaps", "").await?;
    let listed = workspace.list_pods("", pods).await?;
    watchers::read_initial(&workspace, "configmaps", config_maps).await?;
    watchers::read_initial(&workspace, "pods", pods).await?;
    let fanout = Fanout { watchers: 10, writers: 4, updates: 1000, pods };
    watchers::run(&workspace, fanout, &listed.resource_version).await?;
    tokio::time::sleep(SETTLE).await;
    let what = "the same, then listed and watched, then left alone for 5 s".to_owned();
    report.add(figure("memory", what, server.memory()?, "upstream 1,490 + 371 MB"));
    server.stop()
}

pub(super) fn figure(bench: &'static str, what: String, memory: Memory, compare: &'static str) -> Figure {
    let note = format!("RSS; PSS {:.1} MB, peak {:.1} MB", memory.proportional, memory.peak);
    Figure { bench, what, value: memory.resident, unit: "MB", note, compare, ..Figure::default() }
}
