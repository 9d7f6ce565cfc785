//! The API through `kubectl proxy` on a Unix socket, for what kubectl itself cannot ask.
//!
//! Invariant: the proxy ends with its value.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use futures::StreamExt as _;
use http::HeaderValue;
use tokio::net::UnixStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::host::Host;
use crate::kubectl::{Output, run};
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy.
pub struct ApiProxy {
    socket: PathBuf,
    process: Child,
}

impl ApiProxy {
    /// Starts one for a host's cluster.
    pub fn start(host: &Host) -> Self {
        let socket = host.file("api.sock");
        let path = socket.to_str().expect("paths of tests are text");
        let mut command = host.kubectl().command(&["proxy", "--unix-socket", path, "--reject-paths=^$"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl runs");
        let proxy = Self { socket, process };
        eventually("the proxy's answer", PATIENCE, || {
            let answer = proxy.curl(&["http://localhost/version"]);
            if answer.ok { Ok(()) } else { Err(answer.all()) }
        });
        proxy
    }

    /// curl, through the proxy; the host of URLs is `localhost`.
    pub fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "--fail-with-body", "--unix-socket"]).arg(&self.socket).args(arguments);
        run(command, None)
    }

    /// One curl for many requests; each is what stands about it in a file of curl's options.
    pub fn curl_each(&self, requests: &[String]) -> Output {
        let socket = format!("unix-socket = {:?}\nfail-with-body\n", self.socket.display().to_string());
        let sections: Vec<String> = requests.iter().map(|request| format!("{request}{socket}")).collect();
        let file = self.socket.with_extension("requests");
        std::fs::write(&file, sections.join("next\n")).expect("a file can be written");
        let mut command = std::process::Command::new("curl");
        command.arg("-sSK").arg(file);
        run(command, None)
    }

    /// What a WebSocket at a path says before it closes: the chosen protocol and the messages' bytes.
    pub fn websocket(&self, path: &str, protocol: &str) -> (String, Vec<Vec<u8>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let talk = async {
            let stream = UnixStream::connect(&self.socket).await.expect("the proxy listens");
            let mut request = format!("ws://localhost{path}").into_client_request().expect("the path is one");
            let wanted = HeaderValue::from_str(protocol).expect("the protocol is a name");
            request.headers_mut().insert("sec-websocket-protocol", wanted);
            let (mut socket, answer) = client_async(request, stream).await.expect("the API takes WebSockets");
            let chosen = answer.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
            let mut messages = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Binary(_) | Message::Text(_) = message {
                    messages.push(message.into_data().to_vec());
                }
            }
            (chosen.unwrap_or_default().to_owned(), messages)
        };
        let work = async { tokio::time::timeout(PATIENCE, talk).await };
        runtime.expect("a runtime can be made").block_on(work).expect("the WebSocket closes")
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        // Its own child; what is left of it shows as a process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
