//! The socket at which device plug-ins make themselves known: `device-plugins/kubelet.sock`.
//!
//! Invariant: the socket is made anew with each start, which plug-ins watch for to register again.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::choose::is_extended;
use super::{DevicePlugins, attend};
use crate::v1::{Empty, RegisterRequest};

const VERSION: &str = "v1beta1";

/// Takes plug-ins in until `shutdown`.
pub(crate) async fn serve(plugins: Arc<DevicePlugins>, shutdown: CancellationToken) {
    let listener = match bind(plugins.directory()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "device plug-ins can't register: their socket could not be made");
            return shutdown.cancelled().await;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (plugins, ended) = (plugins.clone(), shutdown.clone());
        let service = hyper::service::service_fn(move |request| {
            let (plugins, ended) = (plugins.clone(), ended.clone());
            async move { Ok::<_, Infallible>(route(plugins, ended, request).await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let ended = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// Sockets of an earlier life are taken away: plug-ins see that, and register again.
fn bind(directory: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    UnixListener::bind(directory.join("kubelet.sock"))
}

async fn route(
    plugins: Arc<DevicePlugins>,
    shutdown: CancellationToken,
    request: hyper::Request<Incoming>,
) -> hyper::Response<Body> {
    let request = request.map(Body::new);
    if request.uri().path() != "/v1beta1.Registration/Register" {
        return Status::unimplemented(request.uri().path().to_owned()).into_http();
    }
    let service = tower::service_fn(move |request: Request<RegisterRequest>| {
        let (plugins, shutdown) = (plugins.clone(), shutdown.clone());
        async move { register(plugins, shutdown, request.into_inner()).map(|()| Response::new(Empty {})) }
    });
    tonic::server::Grpc::new(ProstCodec::<Empty, RegisterRequest>::default()).unary(service, request).await
}

fn register(plugins: Arc<DevicePlugins>, shutdown: CancellationToken, request: RegisterRequest) -> Result<(), Status> {
    check(&request.resource_name, &request.version).map_err(Status::unknown)?;
    let socket = plugins.directory().join(&request.endpoint);
    let following = attend(plugins, request.resource_name, socket, request.options.unwrap_or_default());
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = following => {}
        }
    });
    Ok(())
}

/// Upstream's words for plug-ins that are not taken.
pub(crate) fn check(resource: &str, version: &str) -> Result<(), String> {
    if version != VERSION {
        return Err(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is {VERSION:?}"
        ));
    }
    match is_extended(resource) {
        true => Ok(()),
        false => Err(format!("the ResourceName {resource:?} is invalid")),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_is_not_taken_is_named() {
        assert_eq!(check("example.com/x", "v1beta1"), Ok(()));
        assert_eq!(check("cpu", "v1beta1"), Err("the ResourceName \"cpu\" is invalid".to_owned()));
        assert!(check("example.com/x", "v1alpha").unwrap_err().starts_with("requested API version \"v1alpha\""));
    }
}
