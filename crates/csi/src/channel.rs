//! One connection to a unix socket, and calls over it.
//!
//! It dials at its first call and again after the other end was restarted. Invariant: a call ends by its deadline, whatever
//! the other end does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::error::CsiError;

/// Calls of the services behind one socket; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel {
    path: PathBuf,
    channel: tonic::transport::Channel,
    deadline: Duration,
}

impl Channel {
    /// Dials at the first call.
    pub fn new(path: &Path, deadline: Duration) -> Self {
        let socket = path.to_owned();
        // The authority is never dialled: the connector ignores it.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }));
        Self { path: path.to_owned(), channel, deadline }
    }

    /// Sends one message to a method such as `/csi.v1.Node/NodeGetInfo`.
    pub async fn call<M, T>(&self, method: &'static str, message: M) -> Result<T, CsiError>
    where
        M: prost::Message + 'static,
        T: prost::Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        let answer = async {
            client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            client.unary(request, PathAndQuery::from_static(method), ProstCodec::<M, T>::default()).await
        };
        match tokio::time::timeout(self.deadline, answer).await {
            Err(_) => Err(CsiError::deadline()),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CsiError::from_status(&self.path.to_string_lossy(), &status)),
        }
    }

    /// Sends one message to a method that answers with many. The deadline is for the beginning of the stream only.
    pub async fn stream<M, T>(&self, method: &'static str, message: M) -> Result<tonic::Streaming<T>, CsiError>
    where
        M: prost::Message + 'static,
        T: prost::Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let answer = async {
            client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let codec = ProstCodec::<M, T>::default();
            client.server_streaming(Request::new(message), PathAndQuery::from_static(method), codec).await
        };
        match tokio::time::timeout(self.deadline, answer).await {
            Err(_) => Err(CsiError::deadline()),
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CsiError::from_status(&self.path.to_string_lossy(), &status)),
        }
    }
}
