//! `k8s.io.kubelet.pkg.apis.dra.v1`: `v1beta1` has the same messages under another name of the service.

use std::collections::HashMap;

/// A claim that a driver is asked about.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Claim {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Claims to be prepared.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePrepareResourcesRequest {
    /// The claims.
    #[prost(message, repeated, tag = "1")]
    pub claims: Vec<Claim>,
}

/// What came of it, by claim uid.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodePrepareResourcesResponse {
    /// The outcomes.
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, NodePrepareResourceResponse>,
}

/// What came of one claim.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePrepareResourceResponse {
    /// The devices.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<PreparedDevice>,
    /// Why not, where it is not empty.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// A device as it is handed to the runtime (`Device` of the protocol).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreparedDevice {
    /// The requests that it serves; none means all.
    #[prost(string, repeated, tag = "1")]
    pub request_names: Vec<String>,
    /// Its pool.
    #[prost(string, tag = "2")]
    pub pool_name: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub device_name: String,
    /// What the runtime is told.
    #[prost(string, repeated, tag = "4")]
    pub cdi_device_ids: Vec<String>,
    /// The share of a device that several have.
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

/// Claims whose preparation is to be undone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnprepareResourcesRequest {
    /// The claims.
    #[prost(message, repeated, tag = "1")]
    pub claims: Vec<Claim>,
}

/// What came of it, by claim uid.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeUnprepareResourcesResponse {
    /// The outcomes.
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, NodeUnprepareResourceResponse>,
}

/// What came of one claim.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnprepareResourceResponse {
    /// Why not, where it is not empty.
    #[prost(string, tag = "1")]
    pub error: String,
}
