//! The socket at which device plug-ins make themselves known: `device-plugins/kubelet.sock`.
//!
//! Invariant: the socket is made anew with each start, which plug-ins watch for to register again.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::choose::is_extended;
use super::{DevicePlugins, attend};
use crate::grpc;
use crate::v1::{Empty, RegisterRequest};

const VERSION: &str = "v1beta1";

/// Takes plug-ins in until `shutdown`.
pub(crate) async fn serve(plugins: Arc<DevicePlugins>, shutdown: CancellationToken) {
    let listener = sweep(plugins.directory()).and_then(|()| grpc::bind(&plugins.directory().join("kubelet.sock")));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "device plug-ins can't register: their socket could not be made");
            return shutdown.cancelled().await;
        }
    };
    let ended = shutdown.clone();
    let route = move |request: hyper::Request<tonic::body::Body>| {
        let (plugins, shutdown) = (plugins.clone(), ended.clone());
        async move {
            if request.uri().path() != "/v1beta1.Registration/Register" {
                return grpc::unknown(&request);
            }
            grpc::unary(request, |asked| {
                let taken = register(plugins.clone(), shutdown.clone(), asked);
                async move { taken.map(|()| Empty {}) }
            })
            .await
        }
    };
    grpc::serve(listener, route, shutdown).await;
}

/// Sockets of an earlier life are taken away: plug-ins see that, and register again.
fn sweep(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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
