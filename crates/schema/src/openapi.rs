//! OpenAPI documents, made from the facts when somebody asks: version 3 for each group version, version 2 for everything.
//!
//! They hold what clients decide by (types, merge rules, kinds, parameters) and no prose. Definitions and paths are written
//! one by one, so that making a document takes little more memory than the document.

mod custom;
mod definitions;
mod foreign;
mod operations;
mod paths;
mod prose;
mod protobuf;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

pub use foreign::ForeignSchema;
pub use v2::{openapi_v2_json, openapi_v2_protobuf};
pub use v3::{openapi_v3, openapi_v3_hash, openapi_v3_index};

/// What clients ask for when they want version 2 as protobuf. The `@` makes it no valid media type, so the answer is
/// [`OPENAPI_V2_PROTOBUF`], which is asked for as well.
pub const OPENAPI_V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The `Content-Type` of version 2 as protobuf.
pub const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A resource that the server serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServedResource {
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// `deployments`
    pub resource: String,
    /// `Deployment`
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Discovery verbs: `create`, `get`, `list`, `deletecollection`, ...
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<ServedSubresource>,
    /// Its OpenAPI v3 schema as JSON, for a custom resource.
    pub schema: Option<String>,
}

/// A subresource that the server serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServedSubresource {
    /// `scale`
    pub name: String,
    /// Group of its kind, where that differs from the resource's; for example `autoscaling`.
    pub group: String,
    /// Version of its kind.
    pub version: String,
    /// Its kind, such as `Scale`, or the options of a connection, such as `PodExecOptions`.
    pub kind: String,
    /// Discovery verbs.
    pub verbs: Vec<String>,
}
