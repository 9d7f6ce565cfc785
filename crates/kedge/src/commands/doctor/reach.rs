//! What repairs reach beyond files: objects of a cluster's API, and the kubelet where no service manager keeps it.

use std::sync::Arc;

use http::{Method, Request};
use kedge_client::Client;
use kedge_lifecycle::{HostLayout, start_kubelet, stop_kubelet};
use kedge_repair::Access;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// A cluster, and this machine.
pub(super) struct Reach {
    /// None where no cluster is known.
    client: Option<Client>,
    server: String,
}

impl Reach {
    pub(super) fn new(client: Option<Client>, server: String) -> Arc<Self> {
        Arc::new(Self { client, server })
    }

    /// A request, waited for: repairs are made one step after the other.
    fn call(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Option<Value>, String> {
        let client = self.client.as_ref().ok_or("no kubeconfig names a cluster")?;
        let request = request.map_err(|error| error.to_string())?;
        match block_in_place(|| Handle::current().block_on(client.request::<Value>(request))) {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Access for Reach {
    fn server(&self) -> &str {
        &self.server
    }

    fn get(&self, path: &str) -> Result<Option<Value>, String> {
        self.call(Request::get(path).body(Vec::new()))
    }

    fn patch(&self, path: &str, patch: &Value) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager=kedge-doctor"))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes());
        self.call(request)?.map(drop).ok_or_else(|| "it is gone".to_owned())
    }

    fn keep_kubelet(&self, runs: bool) -> Result<(), String> {
        let layout = HostLayout::default();
        let kept = block_in_place(|| {
            Handle::current().block_on(async {
                match runs {
                    true => start_kubelet(&layout, &|_| {}).await,
                    false => stop_kubelet(&layout).await,
                }
            })
        });
        kept.map_err(|error| error.to_string())
    }
}
