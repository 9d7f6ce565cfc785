//! Exec, attach and port-forward: the runtime names a streaming server, and bytes go through to it.
//!
//! Invariant: a container is entered only while it runs, and by the name that the pod's spec has for it.

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kedge_cri::{CriError, v1};
use kedge_streaming::{dial_url, is_upgrade_request, proxy_upgrade};

use super::routes::find_pod;
use super::{Body, Server, full, text};
use crate::spec;

/// `/exec/{namespace}/{pod}[/{uid}]/{container}`.
pub(super) async fn exec(
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
    let query = request.uri().query().unwrap_or_default().to_owned();
    let streams = Streams::parse(&query);
    let cmd = query_values(&query, "command");
    if !streams.any() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr\n");
    }
    let asked = v1::ExecRequest {
        container_id: id,
        cmd,
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !streams.tty,
    };
    let url = server.agent.runtime.exec(asked).await;
    through(url, request).await
}

/// `/attach/{namespace}/{pod}[/{uid}]/{container}`.
pub(super) async fn attach(
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
    let query = request.uri().query().unwrap_or_default().to_owned();
    let streams = Streams::parse(&query);
    if !streams.any() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr\n");
    }
    let wanted = find_pod(server, namespace, pod, None);
    let container = wanted.as_ref().and_then(|pod| spec::find_container(pod, rest.last().copied().unwrap_or_default()));
    // The container's own terminal counts, not what the client believes of it.
    let tty = container.is_some_and(|container| container.tty.unwrap_or(false));
    let asked = v1::AttachRequest {
        container_id: id,
        tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !tty,
    };
    let url = server.agent.runtime.attach(asked).await;
    through(url, request).await
}

/// `/portForward/{namespace}/{pod}[/{uid}]`.
pub(super) async fn port_forward(
    server: &Server,
    namespace: &str,
    pod: &str,
    rest: &[&str],
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(found) = find_pod(server, namespace, pod, rest.first().copied()) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found\n"));
    };
    let state = server.agent.states.get(spec::uid(&found));
    let Some(sandbox) = state.ready_sandbox() else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to find sandbox for pod \"{pod}\"\n"));
    };
    let ports = query_values(request.uri().query().unwrap_or_default(), "port");
    let port = ports.iter().flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok()).collect();
    let asked = v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    let url = server.agent.runtime.port_forward(asked).await;
    through(url, request).await
}

/// The id of a container that runs: by pod, perhaps its uid, and name.
pub(super) fn running_container(
    server: &Server,
    namespace: &str,
    name: &str,
    rest: &[&str],
) -> Result<String, Box<Response<Body>>> {
    let (uid, container) = match rest {
        [container] => (None, *container),
        [uid, container] => (Some(*uid), *container),
        _ => return Err(Box::new(text(StatusCode::NOT_FOUND, "404 page not found\n"))),
    };
    let Some(pod) = find_pod(server, namespace, name, uid) else {
        return Err(Box::new(text(StatusCode::NOT_FOUND, format!("pod does not exist: {name}_{namespace}\n"))));
    };
    let state = server.agent.states.get(spec::uid(&pod));
    let record = state.container(container).filter(|record| record.running());
    let missing = || {
        text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("unable to upgrade connection: container not found (\"{container}\")"),
        )
    };
    record.map(|record| record.id.clone()).ok_or_else(|| Box::new(missing()))
}

/// Lets the client and the runtime's streaming server talk.
async fn through(url: Result<String, CriError>, request: Request<Incoming>) -> Response<Body> {
    if !is_upgrade_request(request.headers()) {
        return text(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request\n");
    }
    let url = match url {
        Ok(url) => url,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    match dial_url(&url).await {
        Ok((stream, target)) => proxy_upgrade(request, stream, target).await.spawn().map(|body| full(body).boxed()),
        Err(error) => {
            text(StatusCode::BAD_GATEWAY, format!("failed to reach the runtime's streaming server: {error}\n"))
        }
    }
}

/// Which streams a client wants; the API server's and the kubelet's names are both understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    fn parse(query: &str) -> Self {
        let set = |names: [&str; 2]| {
            names.iter().flat_map(|name| query_values(query, name)).any(|value| value == "1" || value == "true")
        };
        Self {
            stdin: set(["input", "stdin"]),
            stdout: set(["output", "stdout"]),
            stderr: set(["error", "stderr"]),
            tty: set(["tty", "tty"]),
        }
    }

    fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// The decoded values of a key of a query.
pub(super) fn query_values(query: &str, key: &str) -> Vec<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(name, _)| decode(name) == key).map(|(_, value)| decode(value)).collect()
}

/// Percent-decodes.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = bytes.get(index + 1..index + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[index], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                index += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = "command=sh&command=-c&command=echo+a%20b%26&input=1&output=true&tty=0";
        assert_eq!(query_values(query, "command"), ["sh", "-c", "echo a b&"]);
        assert!(query_values(query, "none").is_empty());
        assert_eq!(Streams::parse(query), Streams { stdin: true, stdout: true, stderr: false, tty: false });
        assert!(!Streams::parse("").any());
        assert_eq!(decode("100%"), "100%");
    }
}
