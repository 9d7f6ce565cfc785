//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;

use super::routes::find_pod;
use super::{Body, Server, text};
use crate::agent::Agent;
use crate::logs::{LogRequest, stream};
use crate::spec;

/// Chunks that wait for a slow client.
const CHUNKS: usize = 4;

/// Streams the log of one container.
pub(super) async fn serve(
    server: &Server,
    namespace: &str,
    name: &str,
    container: &str,
    query: &str,
) -> Response<Body> {
    let Some(pod) = find_pod(server, namespace, name, None) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found\n"));
    };
    if spec::find_container(&pod, container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container} not found in pod {name}_{namespace}\n"));
    }
    let options = match Options::parse(query, server.agent.now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, format!("{message}\n")),
    };
    let id = match choose(&pod, container, options.previous) {
        Ok(id) => id,
        Err(message) => return text(StatusCode::BAD_REQUEST, format!("{message}\n")),
    };
    let Some(path) = log_path(server, &pod, &id).await else {
        return text(StatusCode::BAD_REQUEST, format!("unable to retrieve container logs for containerd://{id}\n"));
    };
    let (out, chunks) = mpsc::channel::<Bytes>(CHUNKS);
    let request = LogRequest { path: path.clone(), ..options.request };
    let (agent, uid): (Arc<Agent>, String) = (server.agent.clone(), spec::uid(&pod).to_owned());
    tokio::spawn(async move {
        let alive = || agent.states.get(&uid).containers.iter().any(|record| record.id == id && record.running());
        if let Err(error) = stream(request, out.clone(), alive).await {
            // The client has its answer already; upstream tells it in the stream too.
            let message =
                format!("failed to try resolving symlinks in path {:?}: {error}\n", path.display().to_string());
            let _ = out.send(message.into()).await;
        }
    });
    let frames = tokio_stream(chunks).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = Response::new(StreamBody::new(frames).map_err(|never| match never {}).boxed());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn tokio_stream(receiver: mpsc::Receiver<Bytes>) -> impl futures::Stream<Item = Bytes> + Send + Sync {
    futures::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|chunk| (chunk, receiver)) },
    )
}

async fn log_path(server: &Server, pod: &Pod, id: &str) -> Option<PathBuf> {
    let state = server.agent.states.get(spec::uid(pod));
    let known = state.containers.iter().find(|record| record.id == id).map(|record| record.log_path.clone());
    match known {
        Some(path) => Some(path.into()),
        None => {
            let status = server.agent.runtime.container_status(id, false).await.ok()?.status?;
            Some(status.log_path.into())
        }
    }
}

struct Options {
    previous: bool,
    request: LogRequest,
}

impl Options {
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let value = |key: &str| super::streams::query_values(query, key).into_iter().next();
        let flag = |key: &str| value(key).is_some_and(|value| value == "true" || value == "1" || value.is_empty());
        let number = |key: &str, least: i64| -> Result<Option<i64>, String> {
            let Some(text) = value(key).filter(|text| !text.is_empty()) else { return Ok(None) };
            let number: i64 = text.parse().map_err(|_| format!("invalid {key}: {text:?}"))?;
            if number < least {
                Err(format!("{key} must be greater than or equal to {least}"))
            } else {
                Ok(Some(number))
            }
        };
        let since = match (number("sinceSeconds", 1)?, value("sinceTime").filter(|text| !text.is_empty())) {
            (Some(_), Some(_)) => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned());
            }
            (Some(seconds), None) => Timestamp::from_second(now.as_second() - seconds).ok(),
            (None, Some(text)) => Some(text.parse().map_err(|_| format!("invalid sinceTime: {text:?}"))?),
            (None, None) => None,
        };
        let only = match value("stream").as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(false),
            Some("Stderr") => Some(true),
            Some(other) => return Err(format!("invalid stream: {other:?}")),
        };
        let request = LogRequest {
            path: PathBuf::new(),
            follow: flag("follow"),
            timestamps: flag("timestamps"),
            tail_lines: number("tailLines", 0)?.and_then(|lines| usize::try_from(lines).ok()),
            since,
            limit_bytes: number("limitBytes", 1)?.and_then(|bytes| u64::try_from(bytes).ok()),
            only,
        };
        Ok(Self { previous: flag("previous"), request })
    }
}

/// The container whose log is meant; texts are upstream's.
fn choose(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = spec::name(pod);
    let status = spec::pod_status(pod);
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let known: Option<&ContainerStatus> = lists.into_iter().flatten().flatten().find(|status| status.name == container);
    let known = known.ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let state = known.state.clone().unwrap_or_default();
    let last = known.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last_id = last.and_then(|last| last.container_id.clone()).filter(|id| !id.is_empty());
    let id = if previous {
        last_id.ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"))?
    } else if state.running.is_some() {
        known.container_id.clone().unwrap_or_default()
    } else if let Some(terminated) = &state.terminated {
        let own = terminated.container_id.clone().filter(|id| !id.is_empty());
        own.or(last_id).ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"))?
    } else if last.is_some() {
        last_id.ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"))?
    } else {
        let reason = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
        let why = match reason.as_str() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            "" => return Err(format!("container {container:?} in pod {name:?} is waiting to start - no logs yet")),
            other => other,
        };
        return Err(format!("container {container:?} in pod {name:?} is waiting to start: {why}"));
    };
    Ok(id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p" },
            "status": { "containerStatuses": [status] },
        }))
        .unwrap()
    }

    #[test]
    fn the_right_container_is_chosen() {
        let check =
            |state: serde_json::Value, last: serde_json::Value, previous: bool, expected: Result<&str, &str>| {
                let status = serde_json::json!({
                    "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": "containerd://now", "state": state, "lastState": last,
                });
                let got = choose(&pod(status), "c", previous);
                assert_eq!(got.as_deref().map_err(String::as_str), expected);
            };
        let ended = serde_json::json!({ "terminated": { "exitCode": 1, "containerID": "containerd://old" } });
        let none = serde_json::json!({});
        let running = serde_json::json!({ "running": {} });
        let waiting = |reason: &str| serde_json::json!({ "waiting": { "reason": reason } });
        check(running.clone(), none.clone(), false, Ok("now"));
        check(running.clone(), ended.clone(), true, Ok("old"));
        check(running, none.clone(), true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        check(ended.clone(), none.clone(), false, Ok("old"));
        check(waiting("CrashLoopBackOff"), ended, false, Ok("old"));
        let text = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
        check(waiting("ImagePullBackOff"), none.clone(), false, Err(text));
        check(
            waiting("ContainerCreating"),
            none,
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
        );
    }

    #[test]
    fn bad_options_are_refused() {
        let check = |query: &str, fine: bool| {
            let now = Timestamp::from_second(1000).unwrap();
            assert_eq!(Options::parse(query, now).is_ok(), fine, "{query}");
        };
        check("follow=true&tailLines=10&timestamps=true", true);
        check("tailLines=-1", false);
        check("tailLines=x", false);
        check("sinceSeconds=0", false);
        check("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", false);
        check("sinceTime=2026-01-01T00%3A00%3A00Z", true);
        check("limitBytes=0", false);
    }
}
