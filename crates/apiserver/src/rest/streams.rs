//! `pods/exec`, `pods/attach`, `pods/portforward`: connections to a container, handed through to the kubelet.
//!
//! WebSocket clients are translated to the SPDY that kubelets speak; SPDY clients are passed through.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use kedge_meta::{ApiStatus, GroupResource, StatusReason};
use kedge_streaming::{StreamOptions, Target, Upgrade};
use serde_json::Value;

use super::connect;
use super::kubelet::{self, Endpoint};
use super::logs::encode;
use crate::access;
use crate::admission::{Attributes, Operation, Seen, Told};
use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::object;
use crate::reply::Reply;

/// Runs a command in a container.
pub(super) async fn exec(core: &Arc<Core>, call: &mut Call) -> Reply {
    if call.query.non_empty("command").is_none() {
        return Err(ApiStatus::bad_request("you must specify at least 1 command for the container"));
    }
    remote_command(core, call, "exec").await
}

/// Connects to a container's main process.
pub(super) async fn attach(core: &Arc<Core>, call: &mut Call) -> Reply {
    remote_command(core, call, "attach").await
}

async fn remote_command(core: &Arc<Core>, call: &mut Call, verb: &'static str) -> Reply {
    let pod = running_pod(core, call).await?;
    let target = call.resource().clone();
    let container = kubelet::container(&pod, call.query.get("container").unwrap_or(""))?;
    let endpoint = kubelet::endpoint(core, object::text(&pod, &["spec", "nodeName"])).await?;
    let options = StreamOptions::from_query(&call.raw_query);
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(ApiStatus::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let mut path = format!("/{verb}/{}/{}/{container}?", target.namespace, target.name);
    for (name, on) in
        [("input", options.stdin), ("output", options.stdout), ("error", options.stderr), ("tty", options.tty)]
    {
        if on {
            path.push_str(&format!("{name}=1&"));
        }
    }
    for command in call.query.all("command") {
        path.push_str(&format!("command={}&", encode(command)));
    }
    let path = path.trim_end_matches(['&', '?']).to_owned();
    let backend = Target::new(endpoint.authority(), path);
    let (request, kept) = (client_request(call), call.kept());
    let tls = core.kubelet_tls.clone();
    let upgrade = if kedge_streaming::is_websocket_request(&call.headers) {
        kedge_streaming::translate_streams(request, options, backend, move || async move {
            kubelet::dial(tls, &endpoint).await
        })
    } else {
        let stream = dial(core, &endpoint).await?;
        kedge_streaming::proxy_upgrade(request, stream, backend).await
    };
    Ok(spawn(upgrade, kept))
}

/// Forwards ports of a pod.
pub(super) async fn port_forward(core: &Arc<Core>, call: &mut Call) -> Reply {
    let pod = running_pod(core, call).await?;
    let target = call.resource().clone();
    let endpoint = kubelet::endpoint(core, object::text(&pod, &["spec", "nodeName"])).await?;
    let mut path = format!("/portForward/{}/{}", target.namespace, target.name);
    let ports: Vec<String> = call.query.all("ports").map(|ports| format!("ports={}", encode(ports))).collect();
    if !ports.is_empty() {
        path = format!("{path}?{}", ports.join("&"));
    }
    let backend = Target::new(endpoint.authority(), path);
    let (request, kept) = (client_request(call), call.kept());
    let stream = dial(core, &endpoint).await?;
    let upgrade = if kedge_streaming::wants_tunnel(&call.headers) {
        kedge_streaming::tunnel_port_forward(request, stream, backend).await
    } else {
        kedge_streaming::proxy_upgrade(request, stream, backend).await
    };
    Ok(spawn(upgrade, kept))
}

async fn dial(core: &Core, endpoint: &Endpoint) -> Result<Box<dyn kubelet::Stream>, ApiStatus> {
    let dialed = kubelet::dial(core.kubelet_tls.clone(), endpoint).await;
    dialed.map_err(|error| {
        let text = format!("error dialing backend: dial tcp {}: {error}", endpoint.authority());
        ApiStatus::new(500, StatusReason::InternalError, text)
    })
}

/// Refuses those who may only read: a WebSocket begins with a GET, and what it opens is more than that.
async fn check_may_create(core: &Core, call: &Call) -> Result<(), ApiStatus> {
    let attributes = kedge_auth::Attributes { verb: "create", ..access::attributes(call) };
    if call.verb == attributes.verb || core.access.decide(&attributes).await?.is_allowed() {
        return Ok(());
    }
    let resource = GroupResource { group: String::new(), resource: call.resource().resource.clone() };
    Err(ApiStatus::forbidden(&resource, &call.resource().name, &attributes.denial_text()))
}

/// The pod, if it is on a node.
async fn running_pod(core: &Core, call: &mut Call) -> Result<Value, ApiStatus> {
    check_may_create(core, call).await?;
    if !kedge_streaming::is_upgrade_request(&call.headers) {
        return Err(ApiStatus::bad_request("Upgrade request required"));
    }
    let target = call.resource().clone();
    let pod = kubelet::pod(core, &target.namespace, &target.name).await?;
    let registry = core.registry.load();
    let resource = registry.storage("", "pods").expect("pods are built in");
    let told = Told { options: &Value::Null, dry_run: false, notes: &call.notes, seen: Seen::Nothing };
    let attributes = Attributes { old: Some(&pod), ..Attributes::of(core, call, resource, Operation::Connect, told) };
    core.admission.validate(&attributes, &pod).await?;
    connect::ask(core, call, resource).await?;
    if object::text(&pod, &["spec", "nodeName"]).is_empty() {
        let text = format!("pod {} does not have a host assigned", target.name);
        return Err(ApiStatus::bad_request(text));
    }
    Ok(pod)
}

/// The client's request again, with what its connection is upgraded by.
pub(crate) fn client_request(call: &mut Call) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = call.method.clone();
    *request.headers_mut() = call.headers.clone();
    *request.extensions_mut() = std::mem::take(&mut call.extensions);
    let path = if call.raw_query.is_empty() { call.path.clone() } else { format!("{}?{}", call.path, call.raw_query) };
    *request.uri_mut() = path.parse().expect("it was a URI when it came");
    request
}

/// Goes on with a connection that was upgraded, and lets go of `kept` when it ends.
pub(crate) fn spawn(mut upgrade: Upgrade, kept: Box<dyn Send + Sync>) -> Response<Body> {
    if let Some(session) = upgrade.session.take() {
        let session = async move {
            let ended = session.await;
            drop(kept);
            ended
        };
        upgrade.session = Some(session.boxed());
    }
    upgrade.spawn().map(|bytes: Bytes| Body::full(bytes))
}
