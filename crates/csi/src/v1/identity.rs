//! `csi.v1.Identity`: who a driver is and what it can do as a whole.

use std::collections::HashMap;

/// Asks for a driver's name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetPluginInfoRequest {}

/// A driver's name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetPluginInfoResponse {
    /// A domain name of at most 63 characters.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Of the driver's own counting.
    #[prost(string, tag = "2")]
    pub vendor_version: String,
    /// Whatever else the driver says.
    #[prost(map = "string, string", tag = "3")]
    pub manifest: HashMap<String, String>,
}

/// Asks what a driver offers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetPluginCapabilitiesRequest {}

/// What a driver offers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetPluginCapabilitiesResponse {
    /// One for each.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<PluginCapability>,
}

/// One thing that a driver offers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginCapability {
    /// A service.
    #[prost(message, optional, tag = "1")]
    pub service: Option<PluginService>,
}

/// A service beside Identity and Node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginService {
    /// 1 is the Controller service, 2 says that volumes have a topology.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
}

/// Asks whether a driver is well.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProbeRequest {}

/// Whether a driver is well.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProbeResponse {
    /// Absent reads as ready.
    #[prost(message, optional, tag = "1")]
    pub ready: Option<bool>,
}
