//! The demo: three replicas of the small web application behind a NodePort, as field notes do it with httpbin.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kedge_client::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where the demo answers on every node.
pub const DEMO_NODE_PORT: u16 = 30090;

const NAME: &str = "kedge-demo";
const NAMESPACE: &str = "default";
const MANAGER: &str = "kedge";
/// How long one answer may take, and how long it may be.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 4096;

/// Why the demo is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot deploy the demo's {kind}")]
pub struct DemoError {
    kind: &'static str,
    source: Box<kube::Error>,
}

/// How far the demo is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoState {
    /// Replicas asked for.
    pub replicas: i32,
    /// Replicas that are available.
    pub available: i32,
}

/// Applies the Deployment and the Service (server side, so that what users changed on other fields stays).
pub async fn apply_demo(client: &Client, image: &str) -> Result<(), DemoError> {
    let params = PatchParams::apply(MANAGER).force();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let failed = |kind| move |source| DemoError { kind, source: Box::new(source) };
    deployments.patch(NAME, &params, &Patch::Apply(deployment(image))).await.map_err(failed("Deployment"))?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.patch(NAME, &params, &Patch::Apply(service())).await.map_err(failed("Service"))?;
    Ok(())
}

/// How far the demo is now.
pub async fn demo_state(client: &Client) -> Result<DemoState, DemoError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let deployment =
        deployments.get(NAME).await.map_err(|source| DemoError { kind: "Deployment", source: Box::new(source) })?;
    Ok(DemoState {
        replicas: deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1),
        available: deployment.status.and_then(|status| status.available_replicas).unwrap_or_default(),
    })
}

/// Whether the demo answers at an address of its Service.
pub async fn demo_answers(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // A probe, as the kubelet's: the demo does not note those.
        stream.write_all(b"GET /healthz HTTP/1.0\r\nUser-Agent: kube-probe/kedge\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let status = |answer: &[u8]| answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 200");
    matches!(timeout(PATIENCE, ask).await, Ok(Ok(answer)) if status(&answer))
}

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {"containers": [{
                    "name": "web", "image": image, "imagePullPolicy": "IfNotPresent",
                    "args": ["--listen", "0.0.0.0:8080"],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65534, "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    },
                }]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}},
        "spec": {
            "type": "NodePort", "selector": {"app": NAME},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": DEMO_NODE_PORT}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Whether a server that says this to everybody counts as the demo.
    async fn counts(said: &'static [u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(said).await;
        };
        tokio::join!(demo_answers(address), server).0
    }

    #[tokio::test]
    async fn only_an_answer_counts() {
        assert!(counts(b"HTTP/1.0 200 OK\r\n\r\nok\n").await);
        assert!(!counts(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await);
        assert!(!counts(b"").await);
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port is free").local_addr().expect("an address");
        assert!(!demo_answers(closed).await);
    }
}
