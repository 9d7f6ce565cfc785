//! What containerd's own services do for the node agent where its CRI is too old: signals to tasks, and read-only views of
//! images.
//!
//! Not a client of containerd: five calls, with the messages they need (field numbers are those of containerd's `api`
//! folder, the same since 1.0). Its services answer on the socket of its CRI. Invariant: a view is kept by nothing but its
//! own label, so that it lives until it is removed by name, whatever becomes of the image.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::error::CriError;
use crate::runtime::{Runtime, unary};

/// The namespace of containerd that its CRI works in.
const NAMESPACE: &str = "k8s.io";
/// What containerd's garbage collector leaves alone.
const GC_ROOT: &str = "containerd.io/gc.root";

/// A mount that makes a snapshot visible.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotMount {
    /// The type of the file system, or `bind`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The device or directory.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Where inside of another; empty for views.
    #[prost(string, tag = "3")]
    pub target: String,
    /// As in `/etc/fstab`.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ViewRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(string, tag = "3")]
    parent: String,
    #[prost(map = "string, string", tag = "4")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MountsResponse {
    #[prost(message, repeated, tag = "1")]
    mounts: Vec<SnapshotMount>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, repeated, tag = "2")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    info: Vec<SnapshotInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KillRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    signal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WaitRequest {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WaitResponse {
    #[prost(uint32, tag = "1")]
    exit_status: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

fn in_namespace<M>(mut request: Request<M>) -> Request<M> {
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

impl Runtime {
    async fn containerd<M, T>(
        &self,
        name: &'static str,
        path: &'static str,
        deadline: Option<Duration>,
        message: M,
    ) -> Result<T, CriError>
    where
        M: prost::Message + 'static,
        T: prost::Message + Default + 'static,
    {
        let channel = self.channel();
        self.call(name, deadline, message, |sent| async move { unary(channel, path, in_namespace(sent)).await }).await
    }

    /// A read-only view of what a chain of layers holds, under a key; what mounts it. A view of that key that is there
    /// already is taken as it is. `label` is what [`Runtime::views`] finds it by.
    pub async fn view(
        &self,
        snapshotter: &str,
        key: &str,
        chain_id: &str,
        label: (&str, &str),
    ) -> Result<Vec<SnapshotMount>, CriError> {
        const VIEW: &str = "/containerd.services.snapshots.v1.Snapshots/View";
        const MOUNTS: &str = "/containerd.services.snapshots.v1.Snapshots/Mounts";
        let (name, value) = label;
        // The collector asks for the label, whatever its value.
        let labels = [(name.to_owned(), value.to_owned()), (GC_ROOT.to_owned(), "true".to_owned())].into();
        let view = ViewRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: chain_id.to_owned(),
            labels,
        };
        let deadline = Some(self.request_timeout());
        match self.containerd::<_, MountsResponse>("View", VIEW, deadline, view).await {
            Ok(made) => Ok(made.mounts),
            Err(error) if error.code() == tonic::Code::AlreadyExists => {
                let known = KeyRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
                Ok(self.containerd::<_, MountsResponse>("Mounts", MOUNTS, deadline, known).await?.mounts)
            }
            Err(error) => Err(error),
        }
    }

    /// The views that have a label: each with its key and the label's value.
    pub async fn views(&self, snapshotter: &str, label: &str) -> Result<Vec<(String, String)>, CriError> {
        const LIST: &str = "/containerd.services.snapshots.v1.Snapshots/List";
        let filters = vec![format!("labels.\"{label}\"")];
        let message = ListRequest { snapshotter: snapshotter.to_owned(), filters };
        let channel = self.channel();
        let list = |sent: Request<ListRequest>| async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let path = tonic::codegen::http::uri::PathAndQuery::from_static(LIST);
            let codec = tonic_prost::ProstCodec::<ListRequest, ListResponse>::default();
            grpc.server_streaming(in_namespace(sent), path, codec).await
        };
        let mut stream = self.call("List", Some(self.request_timeout()), message, list).await?;
        let mut found = Vec::new();
        let read = async {
            while let Some(part) = stream.message().await? {
                let labelled =
                    part.info.into_iter().filter_map(|info| Some((info.name, info.labels.get(label)?.clone())));
                found.extend(labelled);
            }
            Ok::<(), Status>(())
        };
        match tokio::time::timeout(self.request_timeout(), read).await {
            Ok(Ok(())) => Ok(found),
            Ok(Err(status)) => Err(CriError::from_status("List", self.endpoint(), &status)),
            Err(_) => Err(CriError::deadline("List")),
        }
    }

    /// Removes a view; succeeds when it is gone already.
    pub async fn remove_view(&self, snapshotter: &str, key: &str) -> Result<(), CriError> {
        const REMOVE: &str = "/containerd.services.snapshots.v1.Snapshots/Remove";
        let message = KeyRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        match self.containerd::<_, Nothing>("Remove", REMOVE, Some(self.request_timeout()), message).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends a signal to the first process of a running container of a containerd.
    pub async fn signal_task(&self, container_id: &str, signal: u32) -> Result<(), CriError> {
        const KILL: &str = "/containerd.services.tasks.v1.Tasks/Kill";
        let message = KillRequest { container_id: container_id.to_owned(), exec_id: String::new(), signal };
        self.containerd::<_, Nothing>("Kill", KILL, Some(self.request_timeout()), message).await.map(drop)
    }

    /// Waits for the end of a container of a containerd, at most as long as given; whether it has ended.
    pub async fn wait_task(&self, container_id: &str, patience: Duration) -> Result<bool, CriError> {
        const WAIT: &str = "/containerd.services.tasks.v1.Tasks/Wait";
        let message = WaitRequest { container_id: container_id.to_owned() };
        // A deadline of the call itself would end it in words that depend on who notices first.
        let wait = self.containerd::<_, WaitResponse>("Wait", WAIT, None, message);
        match tokio::time::timeout(patience, wait).await {
            Err(_) => Ok(false),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.is_not_found() => Ok(true),
            Ok(Err(error)) => Err(error),
        }
    }
}
