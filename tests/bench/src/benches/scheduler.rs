//! Upstream's workloads for schedulers, each on a control plane of its own with simulated nodes: pods a second from the
//! first request to create one until a watch has seen the last one get its node.
//!
//! The whole path is measured: API server, store and scheduler share the cores with the load. Bound pods stay as they are,
//! as they do in upstream's measurement.

mod workloads;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::placement::{PATIENCE, count_placed, make_namespaces, start};
use crate::Arguments;
use crate::connection::{Call, Connection};
use crate::figures::{Figure, Report};
use crate::load::{self, Until};
use crate::server::Server;
use workloads::{HIGH, INIT, MEASURED, NAMED_NODE, Workload};

/// How often a pod comes that fits nowhere.
const CHURN_PERIOD: Duration = Duration::from_millis(200);

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let all = workloads::all(arguments.fleet_nodes);
    let names: Vec<&str> = all.iter().map(|workload| workload.name).collect();
    for name in &arguments.workloads {
        ensure!(names.contains(&name.as_str()), "{name} is none of {}", names.join(", "));
    }
    let is_wanted = |workload: &&Workload| {
        arguments.workloads.is_empty() || arguments.workloads.iter().any(|name| name == workload.name)
    };
    for workload in all.iter().filter(is_wanted) {
        let figure = measure(arguments, workload).await.with_context(|| workload.name.to_owned())?;
        report.add(figure);
    }
    Ok(())
}

async fn measure(arguments: &Arguments, workload: &Workload) -> Result<Figure> {
    let (dir, binary) = (arguments.work_dir()?, arguments.binary()?);
    let simulate = format!("cpu=4,memory=32Gi,zones={},start-pods=false", workload.zones);
    let server = start(&binary, dir.path(), workload.nodes, &simulate).await?;
    make_namespaces(&server, &[INIT, MEASURED]).await?;
    prepare(&server).await?;
    let (count, pod) = &workload.init;
    if *count > 0 {
        place(&server, arguments.clients, INIT, *count, pod).await?;
    }
    let churning = CancellationToken::new();
    let churn = workload.churn.clone().map(|pod| tokio::spawn(churn(server.target.clone(), pod, churning.clone())));
    let (count, pod) = &workload.measured;
    let cpu = server.cpu_time();
    let placed = place(&server, arguments.clients, MEASURED, *count, pod).await?;
    let cpu = server.cpu_time() - cpu;
    churning.cancel();
    if let Some(churn) = churn {
        churn.await.context("the churn ended")??;
    }
    let figure = Figure {
        bench: "scheduler",
        what: format!("{}, {} nodes, {} pods before", workload.name, workload.nodes, workload.init.0),
        value: *count as f64 / placed.until_bound.as_secs_f64(),
        unit: "pods/s",
        note: format!(
            "{count} pods, created within {:.2} s, bound after {:.2} s; {:.2} s of processor time; {:.0} MB",
            placed.until_created.as_secs_f64(),
            placed.until_bound.as_secs_f64(),
            cpu.as_secs_f64(),
            server.memory()?.resident,
        ),
        compare: workload.compare,
        ..Figure::default()
    };
    server.stop()?;
    Ok(figure)
}

struct Placed {
    until_created: Duration,
    until_bound: Duration,
}

/// Makes pods and waits until each has a node.
async fn place(server: &Server, clients: u64, namespace: &str, count: u64, pod: &Value) -> Result<Placed> {
    let bound = count_placed(server, namespace, count).await?;
    let (path, body) = (format!("/api/v1/namespaces/{namespace}/pods"), Bytes::from(pod.to_string()));
    let began = Instant::now();
    let call = move |_| Call::create(path.clone(), body.clone());
    let created = load::run(&server.target, clients, Until::Within(count, PATIENCE), call).await?;
    ensure!(created.requests == count, "only {} of {count} pods were made in time", created.requests);
    let until_bound = bound.await.context("who counts ended")??.duration_since(began);
    Ok(Placed { until_created: created.elapsed, until_bound })
}

/// What some workloads need: a priority class, and a node with a name and room.
async fn prepare(server: &Server) -> Result<()> {
    let mut connection = Connection::open(&server.target).await?;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": HIGH},
        "value": 10});
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
    connection.send(&Call::create(path, class.to_string().into())).await?;
    let capacity = json!({"pods": "90000", "cpu": "4", "memory": "32Gi"});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NAMED_NODE, "annotations": {"kedge.dev/simulated": "true"}},
        "spec": {"podCIDR": "100.127.255.0/24", "podCIDRs": ["100.127.255.0/24"]},
        "status": {"capacity": capacity}});
    connection.send(&Call::create("/api/v1/nodes", node.to_string().into())).await?;
    Ok(())
}

/// Makes pods that fit nowhere, one after the other.
async fn churn(target: crate::target::Target, pod: Value, over: CancellationToken) -> Result<()> {
    let mut connection = Connection::open(&target).await?;
    let call = Call::create(format!("/api/v1/namespaces/{INIT}/pods"), pod.to_string().into());
    while over.run_until_cancelled(tokio::time::sleep(CHURN_PERIOD)).await.is_some() {
        connection.send(&call).await?;
    }
    Ok(())
}
