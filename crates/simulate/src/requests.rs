//! The requests of the simulation, of whose answers only the resource version is read: there are many, and the caches
//! bring the objects anyway.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_client::Client;
use kedge_meta::ObjectKey;
use kube::Resource;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;

const LEASES: &str = "kube-node-lease";

/// Of an answer, what is needed.
#[derive(Deserialize)]
struct Written {
    metadata: WrittenMetadata,
}

#[derive(Deserialize)]
struct WrittenMetadata {
    #[serde(rename = "resourceVersion")]
    resource_version: String,
}

/// The version that a write has made, as a number; 0 where it is none.
type Version = u64;

/// Patches a pod's status.
pub(crate) async fn patch_pod_status(client: &Client, key: &ObjectKey, status: Value) -> Result<Version, kube::Error> {
    let patch = Patch::Strategic(status);
    let pods = Request::new(Pod::url_path(&(), Some(&key.namespace)));
    write(client, pods.patch_subresource("status", &key.name, &PatchParams::default(), &patch)).await
}

/// Removes a pod from the API, if it is still the one of this uid.
pub(crate) async fn remove_pod(client: &Client, key: &ObjectKey, uid: Option<&str>) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: uid.map(str::to_owned), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let pods = Request::new(Pod::url_path(&(), Some(&key.namespace)));
    client.request_text(built(pods.delete(&key.name, &parameters))?).await.map(drop)
}

/// Patches a node's labels.
pub(crate) async fn patch_node(client: &Client, name: &str, patch: Value) -> Result<Version, kube::Error> {
    let nodes = Request::new(Node::url_path(&(), None));
    write(client, nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
}

/// Patches a node's status.
pub(crate) async fn patch_node_status(client: &Client, name: &str, patch: Value) -> Result<Version, kube::Error> {
    let nodes = Request::new(Node::url_path(&(), None));
    write(client, nodes.patch_subresource("status", name, &PatchParams::default(), &Patch::Strategic(patch))).await
}

/// Patches a node's lease.
pub(crate) async fn patch_lease(client: &Client, name: &str, patch: Value) -> Result<Version, kube::Error> {
    let leases = Request::new(Lease::url_path(&(), Some(LEASES)));
    write(client, leases.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
}

/// Makes a node's lease.
pub(crate) async fn create_lease(client: &Client, lease: &Value) -> Result<Version, kube::Error> {
    create(client, &Lease::url_path(&(), Some(LEASES)), lease).await
}

/// Makes an object in the collection of a path.
pub(crate) async fn create(client: &Client, path: &str, object: &Value) -> Result<Version, kube::Error> {
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    write(client, Request::new(path).create(&PostParams::default(), body)).await
}

async fn write<E: Into<kube::core::request::Error>>(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, E>,
) -> Result<Version, kube::Error> {
    let written: Written = client.request(built(request)?).await?;
    Ok(written.metadata.resource_version.parse().unwrap_or_default())
}

fn built<E: Into<kube::core::request::Error>>(
    request: Result<http::Request<Vec<u8>>, E>,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    request.map_err(|error| kube::Error::BuildRequest(error.into()))
}

/// Whether somebody else was faster: the caches will tell.
pub(crate) fn is_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// Whether an object of the name is there already.
pub(crate) fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}
