//! `pluginregistration.Registration`: a plug-in says who it is, the kubelet says whether it was taken.

/// Asks a plug-in who it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InfoRequest {}

/// Who a plug-in is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginInfo {
    /// `CSIPlugin`, `DevicePlugin` or `DRAPlugin`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Its name, unique for its type.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The socket of its service, where that is another one.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// The versions of its service's API.
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegistrationStatus {
    /// Whether it was taken.
    #[prost(bool, tag = "1")]
    pub plugin_registered: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// The plug-in has read the status.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegistrationStatusResponse {}
