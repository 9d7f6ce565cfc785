//! What controllers make of large things, on simulated nodes: a Deployment from its creation until all pods are bound and
//! available, its rolling update, a namespace with many objects that is deleted, and the memory of a large cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use super::memory::{SETTLE, figure};
use super::placement::{PATIENCE, count_placed, get, make_namespaces, start, until};
use crate::Arguments;
use crate::api::Workspace;
use crate::connection::{Call, Connection};
use crate::figures::{Figure, Report};
use crate::load::{self, Until};
use crate::objects;
use crate::server::Server;

const NAMESPACE: &str = "bench-controllers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/bench-controllers/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/bench-controllers/deployments/web";
/// How many nodes the Deployment is spread over.
const NODES: u64 = 1000;
/// The namespace that is deleted has so many objects for each pod of the Deployment.
const OBJECTS_PER_POD: u64 = 5;
/// What nobody touches is packed within two minutes; after this time a cluster is at rest.
const REST: Duration = Duration::from_secs(150);

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (dir, binary) = (arguments.work_dir()?, arguments.binary()?);
    let nodes = NODES.min(arguments.fleet_nodes);
    let server = start(&binary, dir.path(), nodes, "zones=3").await?;
    make_namespaces(&server, &[NAMESPACE]).await?;
    deployment(&server, report, arguments.objects).await?;
    rolling_update(&server, report, arguments.objects).await?;
    server.stop()?;
    let dir = arguments.work_dir()?;
    let server = Server::start(&binary, dir.path()).await?;
    namespace(&server, report, arguments).await?;
    server.stop()?;
    large_cluster(arguments, report).await
}

fn seconds(what: String, began: Instant, server: &Server, compare: &'static str) -> Result<Figure> {
    let note = format!("{:.0} MB resident", server.memory()?.resident);
    let value = began.elapsed().as_secs_f64();
    Ok(Figure { bench: "controllers", what, value, unit: "s", note, compare, ..Figure::default() })
}

async fn deployment(server: &Server, report: &mut Report, replicas: u64) -> Result<()> {
    let bound = count_placed(server, NAMESPACE, replicas).await?;
    let labels = json!({"app": "web"});
    let requests = json!({"cpu": "10m", "memory": "16Mi"});
    let container = json!({"name": "web", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": requests}});
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    });
    let mut connection = Connection::open(&server.target).await?;
    let began = Instant::now();
    connection.send(&Call::create(DEPLOYMENTS, body.to_string().into())).await?;
    let all_bound = bound.await.context("who counts ended")??.duration_since(began);
    let mut figure = seconds(format!("Deployment of {replicas} pods, all bound"), began, server, "")?;
    figure.value = all_bound.as_secs_f64();
    report.add(figure);
    until_available(&mut connection, replicas).await?;
    report.add(seconds(format!("Deployment of {replicas} pods, all available"), began, server, "")?);
    Ok(())
}

async fn rolling_update(server: &Server, report: &mut Report, replicas: u64) -> Result<()> {
    let mut connection = Connection::open(&server.target).await?;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    let began = Instant::now();
    connection.send(&Call::merge_patch(DEPLOYMENT, patch.to_string().into())).await?;
    until_available(&mut connection, replicas).await?;
    report.add(seconds(format!("rolling update of {replicas} pods, 25% at a time"), began, server, "")?);
    Ok(())
}

async fn until_available(connection: &mut Connection, replicas: u64) -> Result<()> {
    until("the Deployment is complete", async || {
        let deployment = get(connection, DEPLOYMENT).await?.context("the Deployment is gone")?;
        let status = &deployment["status"];
        let is_seen = status["observedGeneration"] == deployment["metadata"]["generation"];
        let all = ["replicas", "updatedReplicas", "availableReplicas"].map(|field| status[field].as_u64());
        Ok(is_seen && all.iter().all(|number| *number == Some(replicas)))
    })
    .await
}

/// A namespace full of ConfigMaps, from its deletion until it is gone.
async fn namespace(server: &Server, report: &mut Report, arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::create(&server.target).await?;
    let count = arguments.objects * OBJECTS_PER_POD;
    let path = workspace.collection("configmaps");
    let call = move |number| Call::create(path.clone(), objects::config_map(number));
    let made = load::run(&server.target, arguments.clients, Until::Within(count, PATIENCE), call).await?;
    ensure!(made.requests == count, "only {} of {count} objects were made in time", made.requests);
    let mut connection = Connection::open(&server.target).await?;
    let path = workspace.collection("configmaps");
    let path = path.trim_end_matches("/configmaps");
    let began = Instant::now();
    connection.send(&Call::delete(path)).await?;
    until("the namespace is gone", async || Ok(get(&mut connection, path).await?.is_none())).await?;
    report.add(seconds(format!("deletion of a namespace with {count} objects"), began, server, "")?);
    Ok(())
}

/// The memory of a cluster with all its nodes and pods alive.
async fn large_cluster(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (dir, binary) = (arguments.work_dir()?, arguments.binary()?);
    let (nodes, pods) = (arguments.fleet_nodes, arguments.fleet_pods);
    let what = format!("nodes={nodes},pods={pods}");
    let began = Instant::now();
    let server = Server::start_with(&binary, dir.path(), &["--simulate", &what]).await?;
    let mut connection = Connection::open(&server.target).await?;
    let path = "/api/v1/namespaces/simulated/pods?limit=1";
    until("all pods are there and run", async || {
        let list: Value = serde_json::from_slice(&connection.read(&Call::get(path)).await?)?;
        if list["metadata"]["remainingItemCount"].as_u64() != Some(pods - 1) {
            return Ok(false);
        }
        let waiting: Bytes =
            connection.read(&Call::get(format!("{path}&fieldSelector=status.phase%21%3DRunning"))).await?;
        let list: Value = serde_json::from_slice(&waiting)?;
        Ok(list["items"].as_array().is_some_and(Vec::is_empty))
    })
    .await?;
    report.add(seconds(format!("{nodes} simulated nodes and {pods} pods, all Running"), began, &server, "")?);
    let what = format!("memory, {nodes} nodes and {pods} pods");
    tokio::time::sleep(SETTLE).await;
    report.add(figure("controllers", format!("{what}, just started"), server.memory()?, ""));
    tokio::time::sleep(REST).await;
    let cpu = server.cpu_time();
    tokio::time::sleep(SETTLE).await;
    let cpu = (server.cpu_time() - cpu).as_secs_f64() / SETTLE.as_secs_f64() * 100.0;
    let mut figure = figure("controllers", format!("{what}, at rest"), server.memory()?, "goal < 1,500 MB");
    figure.note.push_str(&format!("; {cpu:.0}% of a core while nothing changes but leases"));
    report.add(figure);
    server.stop()
}
