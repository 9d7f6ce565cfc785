//! What is done to a container on request: `/run`, a command to its end, and `/checkpoint`, a copy of it on disk.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::routes::find_pod;
use super::streams::{query_values, running_container};
use super::{Body, Server, answer, json as json_answer, text};
use crate::spec;

/// `/run/{namespace}/{pod}[/{uid}]/{container}?cmd=...`: what the command printed.
pub(super) async fn run(
    server: &Server,
    namespace: &str,
    pod: &str,
    rest: &[&str],
    request: Request<Incoming>,
) -> Response<Body> {
    let id = match running_container(server, namespace, pod, rest) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let commands = query_values(request.uri().query().unwrap_or_default(), "cmd");
    // As upstream: one value, taken apart at its spaces.
    let command = commands.first().map(|command| command.split(' ').map(str::to_owned).collect()).unwrap_or_default();
    match server.agent.runtime.exec_sync(&id, command, None).await {
        Ok(done) if done.exit_code == 0 => {
            answer(StatusCode::OK, "text/plain; charset=utf-8", [done.stdout, done.stderr].concat())
        }
        Ok(done) => {
            let output = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            let code = done.exit_code;
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("command exited with {code}: {output}\n"))
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// `/checkpoint/{namespace}/{pod}/{container}`: the path of an archive of the container's state.
pub(super) async fn checkpoint(server: &Server, namespace: &str, pod: &str, container: &str) -> Response<Body> {
    let Some(found) = find_pod(server, namespace, pod, None) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist\n");
    };
    if spec::find_container(&found, container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist\n"));
    }
    let id = match running_container(server, namespace, pod, &[container]) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let directory = server.agent.config.root_dir.join("checkpoints");
    let time = server.agent.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let location = directory.join(format!("checkpoint-{pod}_{namespace}-{container}-{time}.tar"));
    let failed = |why: String| {
        let message = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})\n");
        text(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    if let Err(error) = tokio::fs::create_dir_all(&directory).await {
        return failed(error.to_string());
    }
    match server.agent.runtime.checkpoint_container(&id, &location.to_string_lossy()).await {
        Ok(()) => json_answer(&json!({ "items": [location] })),
        Err(error) => failed(error.to_string()),
    }
}
