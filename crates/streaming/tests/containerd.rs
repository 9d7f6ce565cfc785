//! Exec in a real container, by way of containerd's own streaming server and, where it is installed, by kubectl.
//!
//! Needs root, containerd and a static busybox; without them each test says that it was skipped. The sandbox uses the
//! network of the host, so that no CNI configuration is needed.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kedge_cri::{ImageImport, PrivateContainerd, PrivateContainerdConfig, Runtime, v1};
use kedge_oci::ImageBuilder;
use kedge_skip::{skip, skipped_without_containers};
use kedge_streaming::{
    REMOTE_COMMAND_PROTOCOLS, RemoteCommand, StreamOptions, dial_url, is_websocket_request, proxy_upgrade,
    translate_streams, tunnel_port_forward, upgrade_to_spdy, wants_tunnel,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const IMAGE: &str = "localhost/kedge-test/busybox:v1";
type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// One running container, and the sandbox it is in.
#[derive(Clone)]
struct Pod {
    runtime: Runtime,
    sandbox: String,
    container: String,
}

fn sandbox_config() -> v1::PodSandboxConfig {
    let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "web".to_owned(),
            uid: "uid".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        linux: Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

async fn start_pod(containerd: &PrivateContainerd, dir: &Path) -> TestResult<Pod> {
    let archive = dir.join("image.tar");
    let image = ImageBuilder::new(IMAGE)?
        .file("/bin/busybox", "/bin/busybox", 0o755)
        .symlink("/bin/sh", "/bin/busybox")
        .symlink("/bin/cat", "/bin/busybox")
        .symlink("/bin/stty", "/bin/busybox")
        .env("PATH", "/bin")
        .entrypoint(["/bin/busybox", "sleep", "100000"])
        .write_to(&archive)?;
    let runtime = containerd.runtime();
    let import = ImageImport { names: image.names, snapshotter: Some(containerd.snapshotter().to_owned()) };
    runtime.import_image(containerd.socket(), &archive, &import).await?;
    let sandbox = runtime.run_pod_sandbox(sandbox_config(), "").await?;
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let container = runtime.create_container(&sandbox, config, sandbox_config()).await?;
    runtime.start_container(&container).await?;
    Ok(Pod { runtime, sandbox, container })
}

/// Runs the test with a pod, and removes everything whatever came of it.
async fn with_pod<F, R>(test: F) -> TestResult
where
    F: FnOnce(Pod) -> R,
    R: Future<Output = TestResult> + Send + 'static,
{
    let dir = tempfile::Builder::new().prefix("kedge-streaming-").tempdir()?;
    let mut config = PrivateContainerdConfig::new(dir.path().join("containerd"));
    config.cni_conf_dir = dir.path().join("cni");
    config.sandbox_image = IMAGE.to_owned();
    let containerd = PrivateContainerd::start(config).await?;
    let result = match start_pod(&containerd, dir.path()).await {
        // A task of its own, so that a failed assertion does not pass the cleaning up by.
        Ok(pod) => tokio::spawn(test(pod)).await.map_err(Into::into).flatten(),
        Err(error) => Err(error),
    };
    let runtime = containerd.runtime();
    for sandbox in runtime.list_pod_sandboxes(None).await? {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    containerd.stop().await?;
    PrivateContainerd::remove_files(&dir.path().join("containerd"))?;
    result
}

fn all_streams() -> StreamOptions {
    StreamOptions { stdin: true, stdout: true, stderr: true, tty: false }
}

async fn exec_url(pod: &Pod, cmd: &[&str], options: StreamOptions) -> TestResult<String> {
    let request = v1::ExecRequest {
        container_id: pod.container.clone(),
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    Ok(pod.runtime.exec(request).await?)
}

/// Standard output, standard error, and what the error stream said.
async fn exec_over_spdy(pod: &Pod, cmd: &[&str], input: &[u8]) -> TestResult<(Vec<u8>, Vec<u8>, Value)> {
    let url = exec_url(pod, cmd, all_streams()).await?;
    let (io, target) = dial_url(&url).await?;
    let (connection, protocol) = upgrade_to_spdy(io, &target, &REMOTE_COMMAND_PROTOCOLS).await?;
    assert_eq!(protocol, "v4.channel.k8s.io");
    let RemoteCommand { mut error, stdin, stdout, stderr, resize } =
        RemoteCommand::open(&connection, &protocol, all_streams()).await?;
    assert!(resize.is_none());
    let (mut stdin, mut stdout, mut stderr) = (stdin.ok_or("stdin")?, stdout.ok_or("stdout")?, stderr.ok_or("stderr")?);
    let (mut out, mut err, mut outcome) = (Vec::new(), Vec::new(), Vec::new());
    let send = async {
        // A process that does not read its input ends it by itself.
        let _ = stdin.write_all(input).await;
        stdin.shutdown().await
    };
    let (sent, read_out, read_err, read_outcome) = tokio::join!(
        send,
        stdout.read_to_end(&mut out),
        stderr.read_to_end(&mut err),
        error.read_to_end(&mut outcome),
    );
    sent?;
    read_out?;
    read_err?;
    read_outcome?;
    Ok((out, err, serde_json::from_slice(&outcome)?))
}

#[tokio::test]
async fn exec_over_spdy_against_containerd() -> TestResult {
    if skipped_without_containers("exec_over_spdy_against_containerd") {
        return Ok(());
    }
    with_pod(|pod| async move {
        let (out, err, outcome) = exec_over_spdy(&pod, &["cat"], b"hello").await?;
        assert_eq!((out, err), (b"hello".to_vec(), Vec::new()));
        assert_eq!(outcome, json!({ "metadata": {}, "status": "Success" }));
        // More than any window of flow control, which containerd does not have.
        let large: Vec<u8> = (0..2_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
        let (out, _, _) = exec_over_spdy(&pod, &["cat"], &large).await?;
        assert!(out == large, "{} bytes came back", out.len());
        let (out, err, outcome) = exec_over_spdy(&pod, &["sh", "-c", "echo out; echo err >&2; exit 3"], b"").await?;
        assert_eq!((out, err), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(outcome["details"]["causes"], json!([{ "reason": "ExitCode", "message": "3" }]));
        Ok(())
    })
    .await
}

/// An API server with one pod, `default/web`, whose kubelet is containerd itself: enough for kubectl's exec.
async fn api_server(pod: Pod) -> TestResult<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let pod = Arc::new(pod);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let pod = pod.clone();
            let service = hyper::service::service_fn(move |request| {
                let pod = pod.clone();
                async move { Ok::<_, Infallible>(answer(&pod, request).await.map(Full::new)) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    Ok(address)
}

async fn answer(pod: &Pod, request: Request<Incoming>) -> Response<Bytes> {
    match request.uri().path() {
        "/api/v1/namespaces/default/pods/web/exec" => exec(pod, request).await,
        "/api/v1/namespaces/default/pods/web/portforward" => port_forward(pod, request).await,
        path => json_answer(path),
    }
}

fn json_answer(path: &str) -> Response<Bytes> {
    let resource = |name: &str, kind: &str| json!({ "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get", "create"] });
    let body = match path {
        "/api" => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        "/apis" => json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] }),
        "/api/v1" => {
            json!({ "kind": "APIResourceList", "groupVersion": "v1", "resources": [resource("pods", "Pod"), resource("pods/exec", "PodExecOptions")] })
        }
        "/api/v1/namespaces/default/pods/web" => json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": { "name": "web", "namespace": "default", "uid": "uid" },
            "spec": { "containers": [{ "name": "main", "image": IMAGE }] },
            "status": { "phase": "Running" },
        }),
        _ => json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 }),
    };
    let mut response = Response::new(Bytes::from(body.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    if body["code"] == 404 {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

/// As the API server and the kubelet together do it: WebSocket is translated, SPDY goes through.
async fn exec(pod: &Pod, request: Request<Incoming>) -> Response<Bytes> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let options = StreamOptions::from_query(&query);
    let words: Vec<String> =
        query.split('&').filter_map(|pair| pair.strip_prefix("command=")).map(decode_word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let url = exec_url(pod, &words, options).await.expect("the container runs");
    let (io, target) = dial_url(&url).await.expect("containerd listens");
    if is_websocket_request(request.headers()) {
        translate_streams(request, options, target, move || async move { Ok(io) }).spawn()
    } else {
        proxy_upgrade(request, io, target).await.spawn()
    }
}

async fn port_forward(pod: &Pod, request: Request<Incoming>) -> Response<Bytes> {
    let forward = v1::PortForwardRequest { pod_sandbox_id: pod.sandbox.clone(), port: Vec::new() };
    let url = pod.runtime.port_forward(forward).await.expect("the sandbox runs");
    let (io, target) = dial_url(&url).await.expect("containerd listens");
    if wants_tunnel(request.headers()) {
        tunnel_port_forward(request, io, target).await.spawn()
    } else {
        proxy_upgrade(request, io, target).await.spawn()
    }
}

fn decode_word(word: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("hexadecimal")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Every message of a WebSocket exec in which the client sends these messages.
async fn exec_over_websocket(
    api: SocketAddr,
    protocol: &'static str,
    command: &str,
    sent: &[&[u8]],
) -> TestResult<Vec<Vec<u8>>> {
    let url = format!(
        "ws://{api}/api/v1/namespaces/default/pods/web/exec?command={command}&stdin=true&stdout=true&stderr=true"
    );
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    let (mut socket, response) = tokio_tungstenite::client_async(request, TcpStream::connect(api).await?).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    for message in sent {
        socket.send(Message::binary(message.to_vec())).await?;
    }
    let mut messages = Vec::new();
    while let Some(message) = socket.next().await {
        match message? {
            Message::Binary(bytes) => messages.push(bytes.to_vec()),
            Message::Text(text) => messages.push(text.as_bytes().to_vec()),
            _ => {}
        }
    }
    Ok(messages)
}

#[tokio::test]
async fn exec_over_websocket_against_containerd() -> TestResult {
    if skipped_without_containers("exec_over_websocket_against_containerd") {
        return Ok(());
    }
    with_pod(|pod| async move {
        let api = api_server(pod).await?;
        let success = [&[3], json!({ "metadata": {}, "status": "Success" }).to_string().as_bytes()].concat();
        let messages = exec_over_websocket(api, "v5.channel.k8s.io", "cat", &[b"\0hi", &[255, 0]]).await?;
        assert_eq!(messages, [vec![1], b"\x01hi".to_vec(), success.clone()]);
        let messages = exec_over_websocket(api, "v4.channel.k8s.io", "sh&command=-c&command=exit+3", &[]).await?;
        assert_eq!(messages.first(), Some(&vec![1]));
        let outcome: Value = serde_json::from_slice(&messages.last().ok_or("no outcome")?[1..])?;
        assert_eq!(outcome["reason"], "NonZeroExitCode");
        let messages =
            exec_over_websocket(api, "base64.channel.k8s.io", "sh&command=-c&command=read+x;echo+$x", &[b"0aGkK"])
                .await?;
        assert_eq!(messages, [b"1".to_vec(), b"1aGkK".to_vec()]);
        let messages = exec_over_websocket(api, "v5.channel.k8s.io", "missing", &[]).await?;
        let outcome: Value = serde_json::from_slice(&messages.last().ok_or("no outcome")?[1..])?;
        assert_eq!(outcome["status"], "Failure");
        assert!(
            outcome["message"].as_str().is_some_and(|text| text.contains("executable file not found")),
            "{outcome}"
        );
        // A terminal: one output, and the size that the client tells. The loop ends when the size has arrived.
        let script = "while+[+\"$(stty+size+2%3E/dev/null)\"+!=+\"40+100\"+];+do+:;+done;+echo+sized";
        let command = format!("sh&command=-c&command={script}&tty=true").replace('"', "%22");
        let size = b"\x04{\"Width\":100,\"Height\":40}\n";
        let messages = exec_over_websocket(api, "v5.channel.k8s.io", &command, &[size]).await?;
        assert_eq!(messages, [vec![1], b"\x01sized\r\n".to_vec(), success]);
        Ok(())
    })
    .await
}

/// A kubectl of the one or the other version, that speaks WebSocket or SPDY.
struct Kubectl {
    program: String,
    websockets: &'static str,
    api: SocketAddr,
    cache: tempfile::TempDir,
}

impl Kubectl {
    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["--server", &format!("http://{}", self.api), "--kubeconfig", "/dev/null", "--cache-dir"])
            .arg(self.cache.path())
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", self.websockets)
            .kill_on_drop(true);
        command
    }
}

/// Exit code, standard output and standard error of a kubectl that is given this input.
async fn kubectl(tool: &Kubectl, arguments: &[&str], input: &[u8]) -> TestResult<(Option<i32>, Vec<u8>, String)> {
    let mut child =
        tool.command().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or("piped")?;
    let write = async {
        // A command that does not read its input may be gone.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let wait = async { tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output()).await };
    let ((), output) = tokio::join!(write, wait);
    let output = output.map_err(|_| "kubectl did not end within 60 s")??;
    Ok((output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The programs of `KEDGE_KUBECTL`, parted by colons, to try several versions; else the one on PATH.
fn kubectl_programs() -> Vec<String> {
    let list = std::env::var("KEDGE_KUBECTL").unwrap_or_else(|_| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
        found.map(|file| file.display().to_string()).unwrap_or_default()
    });
    list.split(':').filter(|program| !program.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn kubectl_execs_and_forwards_ports() -> TestResult {
    if skipped_without_containers("kubectl_execs_and_forwards_ports") {
        return Ok(());
    }
    let programs = kubectl_programs();
    if programs.is_empty() {
        skip("kubectl_execs_and_forwards_ports", "kubectl is missing");
        return Ok(());
    }
    with_pod(|pod| async move {
        let api = api_server(pod).await?;
        let large: Vec<u8> = (0..1_000_000_u32).map(|index| index.to_le_bytes()[0]).collect();
        for program in programs {
            for websockets in ["true", "false"] {
                let tool = Kubectl { program: program.clone(), websockets, api, cache: tempfile::tempdir()? };
                let context = format!("{program}, WebSockets {websockets}");
                check_kubectl(&tool, &large).await.map_err(|error| format!("{context}: {error}"))?;
            }
        }
        Ok(())
    })
    .await
}

async fn check_kubectl(tool: &Kubectl, large: &[u8]) -> TestResult {
    let (code, out, err) = kubectl(tool, &["exec", "-i", "web", "--", "cat"], large).await?;
    if code != Some(0) || out != large {
        return Err(format!("exec cat: {code:?}, {} bytes, {err}", out.len()).into());
    }
    let script = ["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"];
    let (code, out, err) = kubectl(tool, &script, b"").await?;
    if (code, &out[..]) != (Some(3), b"out\n")
        || !err.starts_with("err\n")
        || !err.ends_with("command terminated with exit code 3\n")
    {
        return Err(format!("exec exit 3: {code:?}, {out:?}, {err}").into());
    }
    forward_with_kubectl(tool).await
}

/// Forwards a port of this machine, whose network the sandbox has, to another one.
async fn forward_with_kubectl(tool: &Kubectl) -> TestResult {
    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let remote = echo.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let mut child =
        tool.command().args(["port-forward", "pod/web", &format!(":{remote}")]).stdout(Stdio::piped()).spawn()?;
    let mut lines = tokio::io::BufReader::new(child.stdout.take().ok_or("piped")?);
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await?;
    let local: SocketAddr = line
        .strip_prefix("Forwarding from ")
        .and_then(|rest| rest.split(' ').next())
        .ok_or_else(|| format!("kubectl said {line:?}"))?
        .parse()?;
    for length in [5, 500_000] {
        let sent = vec![7; length];
        let (mut read, mut write) = TcpStream::connect(local).await?.into_split();
        let mut got = Vec::new();
        let write = async {
            write.write_all(&sent).await?;
            write.shutdown().await
        };
        let (written, read) = tokio::join!(write, read.read_to_end(&mut got));
        written?;
        read?;
        assert!(got == sent, "{} of {length} bytes came back", got.len());
    }
    child.kill().await?;
    Ok(())
}
