//! gRPC over unix sockets: the driver's services at one, its registration at the other.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Response as HttpResponse;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kedge_csi::v1;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::Shared;
use crate::{controller, node};

/// Serves until the end, on a runtime of its own.
pub(crate) fn run(shared: &Arc<Shared>, sockets: &[PathBuf; 2], end: &CancellationToken) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        for socket in sockets {
            let listener = bind(socket);
            tokio::spawn(accept(listener, shared.clone(), sockets[0].clone()));
        }
        end.cancelled().await;
    });
}

fn bind(socket: &Path) -> UnixListener {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).expect("a socket of the test can be made")
}

async fn accept(listener: UnixListener, shared: Arc<Shared>, endpoint: PathBuf) {
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, endpoint) = (shared.clone(), endpoint.clone());
        let service = hyper::service::service_fn(move |request| {
            let (shared, endpoint) = (shared.clone(), endpoint.clone());
            async move { Ok::<_, Infallible>(route(&shared, &endpoint, request).await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

async fn route(shared: &Arc<Shared>, endpoint: &Path, request: hyper::Request<Incoming>) -> HttpResponse<Body> {
    let request = request.map(Body::new);
    let path = request.uri().path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default();
    match method {
        "GetInfo" => unary(request, |_: v1::InfoRequest| plugin(shared, endpoint)).await,
        "NotifyRegistrationStatus" => unary(request, |status| registered(shared, status)).await,
        "GetPluginInfo" => unary(request, |_: v1::GetPluginInfoRequest| name(shared)).await,
        "GetPluginCapabilities" => unary(request, |_: v1::GetPluginCapabilitiesRequest| offers()).await,
        "Probe" => unary(request, |_: v1::ProbeRequest| well()).await,
        "NodeGetInfo" => unary(request, |_: v1::NodeGetInfoRequest| node::info(shared)).await,
        "NodeGetCapabilities" => unary(request, |_: v1::NodeGetCapabilitiesRequest| node::capabilities()).await,
        "NodeStageVolume" => unary(request, |message| node::stage(shared, message)).await,
        "NodeUnstageVolume" => unary(request, |message| node::unstage(shared, message)).await,
        "NodePublishVolume" => unary(request, |message| node::publish(shared, message)).await,
        "NodeUnpublishVolume" => unary(request, |message| node::unpublish(shared, message)).await,
        "NodeExpandVolume" => unary(request, |message| node::expand(shared, message)).await,
        "NodeGetVolumeStats" => unary(request, |message| node::stats(shared, message)).await,
        "CreateVolume" => unary(request, |message| controller::create(shared, message)).await,
        "DeleteVolume" => unary(request, |message| controller::delete(shared, message)).await,
        "ControllerPublishVolume" => unary(request, |message| controller::publish(shared, message)).await,
        "ControllerUnpublishVolume" => unary(request, |message| controller::unpublish(shared, message)).await,
        "ControllerGetCapabilities" => {
            unary(request, |_: v1::ControllerGetCapabilitiesRequest| controller::capabilities()).await
        }
        _ => Status::unimplemented(path).into_http(),
    }
}

/// One request, one answer.
async fn unary<M, T, F>(request: hyper::Request<Body>, answer: impl Fn(M) -> F) -> HttpResponse<Body>
where
    M: prost::Message + Default + 'static,
    T: prost::Message + Default + 'static,
    F: Future<Output = Result<T, Status>>,
{
    let service = tower::service_fn(|request: Request<M>| {
        let answer = answer(request.into_inner());
        async move { answer.await.map(Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<T, M>::default()).unary(service, request).await
}

async fn plugin(shared: &Shared, endpoint: &Path) -> Result<v1::PluginInfo, Status> {
    Ok(v1::PluginInfo {
        r#type: "CSIPlugin".to_owned(),
        name: shared.options.name.clone(),
        endpoint: endpoint.to_string_lossy().into_owned(),
        supported_versions: vec!["1.0.0".to_owned()],
    })
}

async fn registered(shared: &Shared, status: v1::RegistrationStatus) -> Result<v1::RegistrationStatusResponse, Status> {
    let how = if status.plugin_registered { "registered".to_owned() } else { status.error };
    shared.calls.add(crate::Call { method: "NotifyRegistrationStatus".to_owned(), how, ..crate::Call::default() });
    Ok(v1::RegistrationStatusResponse {})
}

async fn name(shared: &Shared) -> Result<v1::GetPluginInfoResponse, Status> {
    let (name, vendor_version) = (shared.options.name.clone(), "0.1.0".to_owned());
    Ok(v1::GetPluginInfoResponse { name, vendor_version, ..Default::default() })
}

async fn offers() -> Result<v1::GetPluginCapabilitiesResponse, Status> {
    let controller = v1::PluginCapability { service: Some(v1::PluginService { r#type: 1 }) };
    Ok(v1::GetPluginCapabilitiesResponse { capabilities: vec![controller] })
}

async fn well() -> Result<v1::ProbeResponse, Status> {
    Ok(v1::ProbeResponse { ready: Some(true) })
}
