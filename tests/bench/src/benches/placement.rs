//! What both benchmarks of simulated nodes need: a control plane with such nodes, and who counts pods that got a node.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::connection::{Call, Connection};
use crate::server::Server;
use crate::watchers::Lines;

/// How long any single part may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(200);
const NODES: &str = "/api/v1/nodes";

/// Starts a control plane with simulated nodes, and waits until pods may go to all of them.
pub(super) async fn start(binary: &Path, dir: &Path, nodes: u64, simulate: &str) -> Result<Server> {
    let what = format!("nodes={nodes},{simulate}");
    let server = Server::start_with(binary, dir, &["--simulate", &what]).await?;
    let mut connection = Connection::open(&server.target).await?;
    let (name, taint) = (memmem::Finder::new("\"podCIDR\":"), memmem::Finder::new("node.kubernetes.io/not-ready"));
    let ready = memmem::Finder::new("\"KubeletReady\"");
    until("all nodes are ready", async || {
        let body = connection.read(&Call::get(NODES)).await?;
        let count = |finder: &memmem::Finder<'_>| finder.find_iter(&body).count() as u64;
        Ok(count(&name) >= nodes && count(&ready) >= nodes && count(&taint) == 0)
    })
    .await?;
    Ok(server)
}

/// Makes namespaces in which pods can be made.
pub(super) async fn make_namespaces(server: &Server, names: &[&str]) -> Result<()> {
    let mut connection = Connection::open(&server.target).await?;
    for name in names {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        connection.send(&Call::create("/api/v1/namespaces", body.to_string().into())).await?;
        let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        connection.ensure(&Call::create(path, body.to_string().into())).await?;
    }
    Ok(())
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds().await? {
        ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// An object as JSON; `None` where there is none.
pub(super) async fn get(connection: &mut Connection, path: &str) -> Result<Option<Value>> {
    match connection.read(&Call::get(path)).await {
        Ok(body) => Ok(Some(serde_json::from_slice(&body)?)),
        Err(error) if error.to_string().contains("was answered with 404") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Counts the pods of a namespace that get a node, from now on; ends when it has seen so many, with when that was.
pub(super) async fn count_placed(server: &Server, namespace: &str, pods: u64) -> Result<JoinHandle<Result<Instant>>> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let mut connection = Connection::open(&server.target).await?;
    let list = get(&mut connection, &format!("{path}?limit=1")).await?.context("there is no list of pods")?;
    let version = list["metadata"]["resourceVersion"].as_str().context("the list has no version")?.to_owned();
    let path = format!("{path}?watch=1&resourceVersion={version}&fieldSelector=spec.nodeName%21%3D");
    let mut body = connection.start(&Call::get(path)).await?.into_body();
    Ok(tokio::spawn(async move {
        let (mut seen, mut lines) = (0, Lines::default());
        while seen < pods {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
            let frame = frame.with_context(|| format!("only {seen} of {pods} pods got a node"))?;
            let data: Bytes = frame.context("the watch ended")??.into_data().unwrap_or_default();
            lines.push(&data, |line| {
                // A pod that got its node has begun to match; its later changes are no news.
                seen += u64::from(line.starts_with(br#"{"type":"ADDED""#));
                if line.starts_with(br#"{"type":"ERROR""#) {
                    bail!("the watch failed: {}", String::from_utf8_lossy(line));
                }
                Ok(())
            })?;
        }
        // Held until here, as the watch ends with its connection.
        drop(connection);
        Ok(Instant::now())
    }))
}
