//! The CRI client: the connection and the calls of `RuntimeService`.
//!
//! One method per call, each with upstream's deadline for it; the calls of `ImageService` are in `images.rs`. It is not a
//! cache and never retries. Invariant: a clone shares the connection, and the connection is made anew by itself after the
//! runtime was restarted.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::error::CriError;
use crate::images::text_field;
use crate::messages::CreateContainerRequest;
use crate::v1;

/// Upstream's `runtimeRequestTimeout` default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Upstream's bound on one CRI message.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Long enough for a busy machine, short enough for a socket whose owner hangs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is told of every call: its name, how long it took, whether it failed.
type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// A client of one container runtime; cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    endpoint: String,
    request_timeout: Duration,
    observer: Option<Observer>,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Connects to `unix:///path` or `/path` and makes sure that CRI v1 answers there.
    pub async fn connect(endpoint: &str) -> Result<Self, CriError> {
        let runtime = Self::connect_lazy(endpoint)?;
        match tokio::time::timeout(CONNECT_TIMEOUT, runtime.version()).await {
            Ok(Ok(_)) => Ok(runtime),
            Ok(Err(CriError::Rpc { code: Code::Unimplemented, message, .. })) => {
                Err(CriError::NotV1 { endpoint: runtime.endpoint, message })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CriError::deadline("Version")),
        }
    }

    /// A client that dials at its first call.
    pub fn connect_lazy(endpoint: &str) -> Result<Self, CriError> {
        let path = socket_path(endpoint)?;
        let endpoint = format!("unix://{}", path.display());
        // The authority is never dialled: the connector below ignores it. gRPC only wants one in `:authority`.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        Ok(Self {
            endpoint,
            request_timeout: REQUEST_TIMEOUT,
            observer: None,
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            channel,
        })
    }

    /// The same client with another deadline for ordinary calls (upstream's `runtimeRequestTimeout`).
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The same client with somebody who is told of every call: its name, how long it took, whether it failed.
    pub fn with_observer(mut self, observer: impl Fn(&'static str, Duration, bool) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where the runtime listens, as `unix:///path`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Runs one call under a deadline; `None` means that only the caller ends it.
    ///
    /// The deadline also travels in the request, so that the runtime stops working on what nobody waits for.
    pub(crate) async fn call<M, T, F>(
        &self,
        name: &'static str,
        deadline: Option<Duration>,
        message: M,
        send: impl FnOnce(Request<M>) -> F,
    ) -> Result<T, CriError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        let answer = self.send(name, deadline, message, send).await;
        if let Some(observer) = &self.observer {
            observer(name, began.elapsed(), answer.is_err());
        }
        answer
    }

    async fn send<M, T, F>(
        &self,
        name: &'static str,
        deadline: Option<Duration>,
        message: M,
        send: impl FnOnce(Request<M>) -> F,
    ) -> Result<T, CriError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut request = Request::new(message);
        let answer = match deadline {
            Some(deadline) => {
                request.set_timeout(deadline);
                tokio::time::timeout(deadline, send(request)).await.map_err(|_| CriError::deadline(name))?
            }
            None => send(request).await,
        };
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(CriError::from_status(name, &self.endpoint, &status)),
        }
    }
}

/// One call by its path, for messages that the generated clients do not know.
pub(crate) async fn unary<M, T>(
    channel: Channel,
    path: &'static str,
    request: Request<M>,
) -> Result<Response<T>, Status>
where
    M: prost::Message + 'static,
    T: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, tonic_prost::ProstCodec::<M, T>::default()).await
}

/// Sends `$message` by method `$method` of the runtime service.
macro_rules! runtime_call {
    ($self:ident, $name:literal, $method:ident, $deadline:expr, $message:expr) => {{
        let mut client = $self.runtime.clone();
        $self.call($name, $deadline, $message, |request| async move { client.$method(request).await })
    }};
}

impl Runtime {
    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<v1::VersionResponse, CriError> {
        let request = v1::VersionRequest { version: "0.1.0".to_owned() };
        runtime_call!(self, "Version", version, Some(self.request_timeout), request).await
    }

    /// The conditions `RuntimeReady` and `NetworkReady`, the runtime handlers, and with `verbose` its configuration.
    pub async fn status(&self, verbose: bool) -> Result<v1::StatusResponse, CriError> {
        runtime_call!(self, "Status", status, Some(self.request_timeout), v1::StatusRequest { verbose }).await
    }

    /// The snapshotter that the CRI of a containerd unpacks images with; `None` where it does not say.
    pub async fn snapshotter(&self) -> Result<Option<String>, CriError> {
        let status = self.status(true).await?;
        Ok(status.info.get("config").and_then(|config| text_field(config, &["containerd", "snapshotter"])))
    }

    /// Makes and starts a pod sandbox; its id. Twice the ordinary deadline, as upstream gives it: the network set-up is
    /// inside.
    pub async fn run_pod_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String, CriError> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        let deadline = Some(self.request_timeout * 2);
        let response = runtime_call!(self, "RunPodSandbox", run_pod_sandbox, deadline, request).await?;
        Ok(response.pod_sandbox_id)
    }

    /// Stops every process of the sandbox and releases its network; succeeds when that was done before.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        runtime_call!(self, "StopPodSandbox", stop_pod_sandbox, Some(self.request_timeout), request).await?;
        Ok(())
    }

    /// Removes the sandbox and its containers; succeeds when it is gone already.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        runtime_call!(self, "RemovePodSandbox", remove_pod_sandbox, Some(self.request_timeout), request).await?;
        Ok(())
    }

    /// Status, and with `verbose` runtime-specific information, of a sandbox.
    pub async fn pod_sandbox_status(&self, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse, CriError> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        runtime_call!(self, "PodSandboxStatus", pod_sandbox_status, Some(self.request_timeout), request).await
    }

    /// The sandboxes that match; all without a filter.
    pub async fn list_pod_sandboxes(
        &self,
        filter: Option<v1::PodSandboxFilter>,
    ) -> Result<Vec<v1::PodSandbox>, CriError> {
        let request = v1::ListPodSandboxRequest { filter };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "ListPodSandbox", list_pod_sandbox, deadline, request).await?.items)
    }

    /// Makes a container in a sandbox; its id. It runs only after `start_container`.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        const CREATE: &str = "/runtime.v1.RuntimeService/CreateContainer";
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let (deadline, channel) = (Some(self.request_timeout), self.channel());
        let send = |request| async move { unary(channel, CREATE, request).await };
        let made: v1::CreateContainerResponse = self.call("CreateContainer", deadline, request, send).await?;
        Ok(made.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        runtime_call!(self, "StartContainer", start_container, Some(self.request_timeout), request).await?;
        Ok(())
    }

    /// Sends the stop signal, and SIGKILL after `grace`; succeeds when the container had stopped before. The deadline is
    /// the ordinary one after the grace.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        let deadline = Some(self.request_timeout + grace);
        runtime_call!(self, "StopContainer", stop_container, deadline, request).await?;
        Ok(())
    }

    /// Removes a container, killing it first where it runs.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        runtime_call!(self, "RemoveContainer", remove_container, Some(self.request_timeout), request).await?;
        Ok(())
    }

    /// The containers that match; all without a filter.
    pub async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>, CriError> {
        let request = v1::ListContainersRequest { filter };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "ListContainers", list_containers, deadline, request).await?.containers)
    }

    /// Status, and with `verbose` runtime-specific information, of a container.
    pub async fn container_status(&self, id: &str, verbose: bool) -> Result<v1::ContainerStatusResponse, CriError> {
        const STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        let channel = self.channel();
        let send = |request| async move { unary(channel, STATUS, request).await };
        self.call("ContainerStatus", Some(self.request_timeout), request, send).await
    }

    /// Changes the resource limits of a running container.
    pub async fn update_container_resources(
        &self,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Result<(), CriError> {
        let deadline = Some(self.request_timeout);
        runtime_call!(self, "UpdateContainerResources", update_container_resources, deadline, request).await?;
        Ok(())
    }

    /// Makes the runtime open the container's log file anew, after it was rotated away.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        runtime_call!(self, "ReopenContainerLog", reopen_container_log, Some(self.request_timeout), request).await?;
        Ok(())
    }

    /// Runs a command in a container to its end. The exit code is in the answer: a command that failed is not an error.
    ///
    /// With a `timeout` of at least a second the runtime ends the command itself, and the call waits a little longer than
    /// that; without one it may run forever, as upstream allows.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse, CriError> {
        let seconds = timeout.map_or(0, |timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
        let deadline = timeout.map(|timeout| timeout + self.request_timeout);
        runtime_call!(self, "ExecSync", exec_sync, deadline, request).await
    }

    /// Prepares a streaming exec; the URL to upgrade to.
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, CriError> {
        Ok(runtime_call!(self, "Exec", exec, Some(self.request_timeout), request).await?.url)
    }

    /// Prepares a streaming attach; the URL to upgrade to.
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, CriError> {
        Ok(runtime_call!(self, "Attach", attach, Some(self.request_timeout), request).await?.url)
    }

    /// Prepares a port-forward into a sandbox; the URL to upgrade to.
    pub async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, CriError> {
        Ok(runtime_call!(self, "PortForward", port_forward, Some(self.request_timeout), request).await?.url)
    }

    /// Resource use of one container.
    pub async fn container_stats(&self, id: &str) -> Result<Option<v1::ContainerStats>, CriError> {
        let request = v1::ContainerStatsRequest { container_id: id.to_owned() };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "ContainerStats", container_stats, deadline, request).await?.stats)
    }

    /// Resource use of the containers that match.
    pub async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, CriError> {
        let request = v1::ListContainerStatsRequest { filter };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "ListContainerStats", list_container_stats, deadline, request).await?.stats)
    }

    /// Resource use of one sandbox. containerd has it since 1.7.
    pub async fn pod_sandbox_stats(&self, id: &str) -> Result<Option<v1::PodSandboxStats>, CriError> {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "PodSandboxStats", pod_sandbox_stats, deadline, request).await?.stats)
    }

    /// Resource use of the sandboxes that match. containerd has it since 1.7.
    pub async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, CriError> {
        let request = v1::ListPodSandboxStatsRequest { filter };
        let deadline = Some(self.request_timeout);
        Ok(runtime_call!(self, "ListPodSandboxStats", list_pod_sandbox_stats, deadline, request).await?.stats)
    }

    /// Tells the runtime the pod CIDR of this node, for runtimes that write a CNI configuration from a template.
    pub async fn update_pod_cidr(&self, cidr: &str) -> Result<(), CriError> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: cidr.to_owned() });
        let request = v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        let deadline = Some(self.request_timeout);
        runtime_call!(self, "UpdateRuntimeConfig", update_runtime_config, deadline, request).await?;
        Ok(())
    }

    /// Writes the state of a running container to an archive. containerd has it since 2.0.
    pub async fn checkpoint_container(&self, id: &str, location: &str) -> Result<(), CriError> {
        let deadline = Some(self.request_timeout);
        let timeout = i64::try_from(self.request_timeout.as_secs()).unwrap_or(i64::MAX);
        let request =
            v1::CheckpointContainerRequest { container_id: id.to_owned(), location: location.to_owned(), timeout };
        runtime_call!(self, "CheckpointContainer", checkpoint_container, deadline, request).await?;
        Ok(())
    }

    /// The stream of container events; it has no deadline. containerd has it since 1.7, before it answers `Unimplemented`.
    pub async fn container_events(&self) -> Result<Streaming<v1::ContainerEventResponse>, CriError> {
        runtime_call!(self, "GetContainerEvents", get_container_events, None, v1::GetEventsRequest {}).await
    }

    /// The runtime's cgroup driver. containerd has it since 2.0.
    pub async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, CriError> {
        let deadline = Some(self.request_timeout);
        runtime_call!(self, "RuntimeConfig", runtime_config, deadline, v1::RuntimeConfigRequest {}).await
    }
}

fn socket_path(endpoint: &str) -> Result<PathBuf, CriError> {
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(CriError::Endpoint { endpoint: endpoint.to_owned() });
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let check = |endpoint: &str, expected: Option<&str>| {
            assert_eq!(socket_path(endpoint).ok(), expected.map(PathBuf::from), "{endpoint}");
        };
        check("unix:///run/x.sock", Some("/run/x.sock"));
        check("unix:/run/x.sock", Some("/run/x.sock"));
        check("/run/x.sock", Some("/run/x.sock"));
        check("tcp://127.0.0.1:80", None);
        check("run/x.sock", None);
        check("", None);
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_unavailable() {
        let error = Runtime::connect("/nonexistent/x.sock").await.expect_err("nothing listens there");
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().ends_with("connect: no such file or directory\""), "{error}");
    }
}
