//! Objects that are to be as they are said to be: created, or replaced where they are there.

use kedge_client::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use crate::error::BootstrapError;

const ATTEMPTS: u32 = 5;

/// The plural of the kinds that are written here.
fn plural(kind: &str) -> &'static str {
    match kind {
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "Role" => "roles",
        "RoleBinding" => "rolebindings",
        "Secret" => "secrets",
        _ => "configmaps",
    }
}

/// Creates an object, or replaces the one of its name.
pub(crate) async fn put(client: &Client, value: Value) -> Result<(), BootstrapError> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let what = format!("unable to create or update {kind} {name:?}");
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind), plural(&kind));
    let api: Api<DynamicObject> = match text("/metadata/namespace").as_str() {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let mut object: DynamicObject =
        serde_json::from_value(value.clone()).map_err(|error| BootstrapError::api(what.clone())(error_of(error)))?;
    for attempt in 1.. {
        let written = match api.get_opt(&name).await.map_err(BootstrapError::api(what.clone()))? {
            None => api.create(&PostParams::default(), &object).await,
            Some(present) => {
                object.metadata.resource_version = present.metadata.resource_version;
                api.replace(&name, &PostParams::default(), &object).await
            }
        };
        match written {
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) && attempt < ATTEMPTS => {
                object.metadata.resource_version = None;
            }
            Err(error) => return Err(BootstrapError::api(what)(error)),
            Ok(_) => break,
        }
    }
    Ok(())
}

fn error_of(error: serde_json::Error) -> kube::Error {
    kube::Error::SerdeError(error)
}
