//! What an autoscaler scales: the resource of a kind, and its scale.
//!
//! Invariant: what the API serves is asked for anew at most every ten seconds.

use std::sync::Arc;
use std::time::Duration;

use kedge_client::Client;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::discovery::{ApiKind, discover};
use crate::error::message_of;

/// Known kinds are good for so long, unknown ones are looked for again after so long.
const STALE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);

type Known = Option<(Instant, Vec<Arc<ApiKind>>)>;

/// The kinds that the API serves.
#[derive(Default)]
pub(super) struct Kinds(Mutex<Known>);

impl Kinds {
    async fn find(&self, client: &Client, group: &str, kind: &str) -> Result<Arc<ApiKind>, String> {
        let is_it = |known: &&Arc<ApiKind>| known.resource.group == group && known.resource.kind == kind;
        let (found, age) = match &*self.0.lock() {
            Some((since, kinds)) => (kinds.iter().find(is_it).cloned(), since.elapsed()),
            None => (None, STALE),
        };
        let limit = if found.is_some() { STALE } else { PATIENCE };
        let found = match age < limit {
            true => found,
            false => {
                let kinds = discover(client).await.map_err(|error| message_of(&error))?;
                let found = kinds.iter().find(is_it).cloned();
                *self.0.lock() = Some((Instant::now(), kinds));
                found
            }
        };
        found.ok_or_else(|| format!("no matches for kind \"{kind}\" in group \"{group}\""))
    }

    /// `resource.group` of a kind, the resource alone in the core group.
    pub(super) async fn resource_name(&self, client: &Client, group: &str, kind: &str) -> Result<String, String> {
        let text = |error| format!("unable to map kind {kind}.{group} to resource: {error}");
        let found = self.find(client, group, kind).await.map_err(text)?;
        Ok(found.resource_and_group().trim_end_matches('.').to_owned())
    }

    /// The scale of an object.
    pub(super) async fn scale(
        &self,
        client: &Client,
        namespace: &str,
        target: &k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference,
    ) -> Result<Scale, String> {
        let version = target.api_version.as_deref().unwrap_or_default();
        let group = match version.split('/').collect::<Vec<_>>().as_slice() {
            [_] => "",
            [group, _] => group,
            _ => return Err(format!("unexpected GroupVersion string: {version}")),
        };
        let kind = self.find(client, group, &target.kind).await?;
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind.resource);
        let object = api.get_subresource("scale", &target.name).await.map_err(|error| message_of(&error))?;
        Ok(Scale { api, name: target.name.clone(), object })
    }
}

/// The scale of an object as it was read last.
pub(super) struct Scale {
    api: Api<DynamicObject>,
    name: String,
    object: DynamicObject,
}

impl Scale {
    fn number(&self, part: &str) -> i32 {
        let number = self.object.data[part]["replicas"].as_i64().unwrap_or(0);
        i32::try_from(number).unwrap_or(i32::MAX)
    }

    /// Replicas as they should be.
    pub(super) fn replicas(&self) -> i32 {
        self.number("spec")
    }

    /// Replicas as they are.
    pub(super) fn status_replicas(&self) -> i32 {
        self.number("status")
    }

    /// The selector of its pods.
    pub(super) fn selector(&self) -> &str {
        self.object.data["status"]["selector"].as_str().unwrap_or_default()
    }

    /// Sets replicas; somebody else's change in between is no obstacle.
    pub(super) async fn set(mut self, replicas: i32) -> Result<(), kube::Error> {
        for attempt in 0.. {
            self.object.data["spec"]["replicas"] = replicas.into();
            let written = self.api.replace_subresource("scale", &self.name, &PostParams::default(), &self.object).await;
            match written {
                Err(error) if crate::error::is_conflict(&error) && attempt < 4 => {
                    self.object = self.api.get_subresource("scale", &self.name).await?;
                }
                other => return other.map(drop),
            }
        }
        Ok(())
    }
}
