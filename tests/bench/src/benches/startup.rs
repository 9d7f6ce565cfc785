//! From the start of the process to `/readyz`: on a fresh data directory, and with objects from a former run.

use std::time::Duration;

use anyhow::Result;

use crate::Arguments;
use crate::api::Workspace;
use crate::figures::{Figure, Report};
use crate::server::Server;

const FRESH_STARTS: usize = 10;
const RESTARTS: usize = 5;

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let binary = arguments.binary()?;
    let mut times = Times::default();
    for _ in 0..FRESH_STARTS {
        let dir = arguments.work_dir()?;
        let server = Server::start(&binary, dir.path()).await?;
        times.add(&server);
        server.stop()?;
    }
    report.add(times.figure("start to /readyz, fresh data directory".to_owned(), "upstream 2.3-2.9 s; goal < 0.25 s"));

    let dir = arguments.work_dir()?;
    let server = Server::start(&binary, dir.path()).await?;
    let written =
        Workspace::create(&server.target).await?.create_config_maps(arguments.clients, arguments.objects).await?;
    server.stop()?;
    let mut times = Times::default();
    for _ in 0..RESTARTS {
        let server = Server::start(&binary, dir.path()).await?;
        times.add(&server);
        server.stop()?;
    }
    report.add(times.figure(format!("restart to /readyz, {} objects of 1 KiB", written.requests), "goal < 0.25 s"));
    Ok(())
}

#[derive(Default)]
struct Times {
    ready: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Times {
    fn add(&mut self, server: &Server) {
        self.ready.push(server.ready_after);
        self.cpu.push(server.cpu);
    }

    fn figure(mut self, what: String, compare: &'static str) -> Figure {
        self.ready.sort_unstable();
        self.cpu.sort_unstable();
        let middle = |times: &[Duration]| times[times.len() / 2].as_secs_f64();
        let (first, last) = (self.ready[0], self.ready[self.ready.len() - 1]);
        Figure {
            bench: "startup",
            what,
            value: middle(&self.ready),
            unit: "s",
            note: format!(
                "median of {}, {:.3}-{:.3} s; {:.2} s of processor time",
                self.ready.len(),
                first.as_secs_f64(),
                last.as_secs_f64(),
                middle(&self.cpu)
            ),
            compare,
            ..Figure::default()
        }
    }
}
