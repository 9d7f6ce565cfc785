//! What kinds of things the API serves right now, for the controllers that work on all of them.

use std::sync::Arc;

use kedge_client::Client;
use kube::api::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiResource, Discovery, Scope};

/// An object of which only the metadata is known.
pub(crate) type Metadata = PartialObjectMeta<DynamicObject>;

/// One resource, in the version to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKind {
    pub(crate) resource: ApiResource,
    pub(crate) is_namespaced: bool,
    verbs: Vec<String>,
}

impl ApiKind {
    pub(crate) fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|supported| supported == verb)
    }

    /// `resource.group`, as upstream prints it; the core group leaves the dot behind.
    pub(crate) fn resource_and_group(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }

    /// The API for objects in a namespace, or for cluster-scoped ones where the kind is such.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<Metadata> {
        match self.is_namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// The API for all objects of the kind.
    pub(crate) fn api_for_all(&self, client: &Client) -> Api<Metadata> {
        Api::all_with(client.clone(), &self.resource)
    }
}

/// Every kind, in its most stable version.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Arc<ApiKind>>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        // Servers before 1.30 list their groups one by one.
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let mut kinds: Vec<Arc<ApiKind>> = discovery
        .groups()
        .flat_map(|group| group.resources_by_stability())
        .map(|(resource, capabilities)| {
            let is_namespaced = capabilities.scope == Scope::Namespaced;
            Arc::new(ApiKind { resource, is_namespaced, verbs: capabilities.operations })
        })
        .collect();
    kinds.sort_by(|a, b| (&a.resource.group, &a.resource.plural).cmp(&(&b.resource.group, &b.resource.plural)));
    Ok(kinds)
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Kinds as tests need them.

    use super::*;

    /// A namespaced kind with the usual verbs.
    pub(crate) fn kind(api_version: &str, kind: &str) -> ApiKind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        let verbs = ["get", "list", "watch", "delete", "patch"].map(str::to_owned).to_vec();
        ApiKind { resource: ApiResource::from_gvk(&gvk), is_namespaced: true, verbs }
    }
}
