//! From a path to its handler.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use kedge_meta::UserInfo;
use serde_json::json;

use super::{Body, Server, container_logs, json as json_answer, metrics, stats, streams, text};
use crate::spec;

/// Answers one request.
pub(super) async fn handle(
    server: &Server,
    certificate: Option<UserInfo>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Some(user) = server.authorizer.user(certificate, request.headers()).await else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    if !server.authorizer.allows(&user, request.method(), &path).await {
        let message =
            format!("Forbidden (user={}, verb={}, resource=nodes, path={path})", user.username, request.method());
        return text(StatusCode::FORBIDDEN, message);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz", ..]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => json_answer(&pods(server)),
        (&Method::GET, ["runningpods"]) => json_answer(&running_pods(server)),
        (&Method::GET, ["configz"]) => json_answer(&json!({ "kubeletconfig": server.agent.config })),
        (&Method::GET, ["stats", "summary"]) => json_answer(&stats::summary(server).await),
        (&Method::GET, ["metrics"]) => metrics::own(server),
        (&Method::GET, ["metrics", "resource"]) => metrics::resource(server).await,
        (&Method::GET, ["metrics", "cadvisor"]) => metrics::cadvisor(server).await,
        (&Method::GET, ["metrics", "probes"]) => metrics::probes(server),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            container_logs::serve(server, namespace, pod, container, request.uri().query().unwrap_or_default()).await
        }
        (_, ["exec", namespace, pod, rest @ ..]) => streams::exec(server, namespace, pod, rest, request).await,
        (_, ["attach", namespace, pod, rest @ ..]) => streams::attach(server, namespace, pod, rest, request).await,
        (_, ["portForward", namespace, pod, rest @ ..]) => {
            streams::port_forward(server, namespace, pod, rest, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// A pod by name, with its newest status.
pub(super) fn find_pod(server: &Server, namespace: &str, name: &str, uid: Option<&str>) -> Option<Pod> {
    let pods = server.pods.read();
    let wanted = |pod: &&std::sync::Arc<Pod>| {
        let same = spec::namespace(pod) == namespace && spec::name(pod) == name;
        same && uid.is_none_or(|uid| uid == spec::uid(pod))
    };
    // A pod that was deleted may still be ending beside its successor.
    let found = pods.values().filter(wanted).min_by_key(|pod| pod.metadata.deletion_timestamp.is_some())?;
    Some(with_status(server, found))
}

fn with_status(server: &Server, pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(status) = server.agent.statuses.get(spec::uid(&pod)) {
        pod.status = Some(status);
    }
    pod
}

fn pods(server: &Server) -> serde_json::Value {
    let pods: Vec<Pod> = server.pods.read().values().map(|pod| with_status(server, pod)).collect();
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods })
}

fn running_pods(server: &Server) -> serde_json::Value {
    let states = server.agent.states.uids().into_iter().map(|uid| server.agent.states.get(&uid));
    let items: Vec<serde_json::Value> = states
        .filter(|state| state.any_running())
        .map(|state| {
            let running = state.containers.iter().filter(|container| container.running());
            let containers: Vec<_> = running
                .map(|container| json!({ "name": container.name, "image": container.image_ref, "resources": {} }))
                .collect();
            json!({
                "metadata": { "name": state.name, "namespace": state.namespace, "uid": state.uid },
                "spec": { "containers": containers },
                "status": {},
            })
        })
        .collect();
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
}
