//! From a path to its handler.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use kedge_meta::UserInfo;
use serde_json::json;

use super::{
    Body, Server, actions, cadvisor, configz, container_logs, health, json as json_answer, metrics, node_logs,
    resource, stats, streams, text,
};
use crate::spec;

/// Paths that name a pod.
const ABOUT_ONE_POD: [&str; 6] = ["attach", "checkpoint", "containerLogs", "exec", "portForward", "run"];

/// How long a request about a pod waits until it is known which pods are here.
const WAIT_FOR_PODS: Duration = Duration::from_secs(10);

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
    if let Err(message) = server.authorizer.check(&user, request.method(), &path).await {
        return text(StatusCode::FORBIDDEN, message);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if ABOUT_ONE_POD.contains(&parts[0]) {
        // Just after a start nobody may say yet that a pod is not here.
        let _ = tokio::time::timeout(WAIT_FOR_PODS, server.agent.pods_known.cancelled()).await;
    }
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(response) = read(server, &parts, &path, request.uri().query().unwrap_or_default()).await
    {
        return response;
    }
    act(server, &parts, request).await
}

/// What can be read.
async fn read(server: &Server, parts: &[&str], path: &str, query: &str) -> Option<Response<Body>> {
    Some(match parts {
        ["healthz", rest @ ..] => health::answer(&server.agent, rest, query),
        ["pods"] => json_answer(&pods(server)),
        ["runningpods"] => json_answer(&running_pods(server)),
        ["configz"] => json_answer(&configz::document(&server.agent.config)),
        ["stats", "summary"] => stats::summary(server, query).await,
        ["metrics"] => metrics::own(server).await,
        ["metrics", "resource"] => resource::answer(server).await,
        ["metrics", "cadvisor"] => cadvisor::answer(server).await,
        ["metrics", "probes"] => metrics::probes(server),
        ["logs", ..] => node_logs::serve(server, &decoded(path.strip_prefix("/logs").unwrap_or_default()), query).await,
        ["containerLogs", namespace, pod, container] => {
            container_logs::serve(server, namespace, pod, container, query).await
        }
        ["debug", ..] => text(StatusCode::NOT_FOUND, "profiling endpoint is disabled: this kubelet is no Go program\n"),
        _ => return None,
    })
}

/// What enters a container.
async fn act(server: &Server, parts: &[&str], request: Request<Incoming>) -> Response<Body> {
    let entering = matches!(*request.method(), Method::GET | Method::POST);
    match parts {
        ["exec", namespace, pod, rest @ ..] if entering => streams::exec(server, namespace, pod, rest, request).await,
        ["attach", namespace, pod, rest @ ..] if entering => {
            streams::attach(server, namespace, pod, rest, request).await
        }
        ["portForward", namespace, pod, rest @ ..] if entering => {
            streams::port_forward(server, namespace, pod, rest, request).await
        }
        ["run", namespace, pod, rest @ ..] if *request.method() == Method::POST => {
            actions::run(server, namespace, pod, rest, request).await
        }
        ["checkpoint", namespace, pod, container] if *request.method() == Method::POST => {
            actions::checkpoint(server, namespace, pod, container).await
        }
        [first, ..] if KNOWN.contains(first) => text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The first words of paths that take some method.
const KNOWN: [&str; 13] = [
    "attach",
    "checkpoint",
    "configz",
    "containerLogs",
    "exec",
    "healthz",
    "logs",
    "metrics",
    "pods",
    "portForward",
    "run",
    "runningpods",
    "stats",
];

fn decoded(path: &str) -> String {
    // A plus sign in a path is one.
    streams::decode(&path.replace('+', "%2B"))
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
