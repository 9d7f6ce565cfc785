//! Tokens for pods of the node: bound to them, and for audiences that they name.

use kedge_auth::{Attributes as Question, ResourceAttributes};
use kedge_meta::{ApiStatus, GroupResource};
use serde_json::Value;

use super::{Attributes, Operation};
use crate::object;

/// The drivers that took over volumes which Kubernetes once served itself.
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

/// Refuses a token that is not for a pod of the node.
pub(super) async fn check(attributes: &Attributes<'_>, node: &str, request: &Value) -> Result<(), ApiStatus> {
    if attributes.operation != Operation::Create || attributes.subresource != "token" {
        return Ok(());
    }
    let reference = |name: &str| object::text(request, &["spec", "boundObjectRef", name]);
    if reference("apiVersion") != "v1" || reference("kind") != "Pod" || reference("name").is_empty() {
        return Err(attributes.forbidden("node requested token not bound to a pod"));
    }
    if reference("uid").is_empty() {
        return Err(attributes.forbidden("node requested token with a pod binding without a uid"));
    }
    let pod = get(attributes, "", "pods", attributes.namespace, reference("name")).await?;
    if object::meta(&pod, "uid") != reference("uid") {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            reference("uid")
        );
        return Err(attributes.forbidden(&why));
    }
    if object::text(&pod, &["spec", "nodeName"]) != node {
        return Err(attributes.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    check_audience(attributes, request, &pod).await
}

/// Refuses an audience that neither the pod nor a driver of its volumes names, unless a role grants it to the node.
async fn check_audience(attributes: &Attributes<'_>, request: &Value, pod: &Value) -> Result<(), ApiStatus> {
    let audience = match object::list(request, &["spec", "audiences"]) {
        [] => "",
        [audience] => audience.as_str().unwrap_or_default(),
        _ => return Err(attributes.forbidden("node may only request 0 or 1 audiences")),
    };
    match names_audience(attributes, pod, audience).await {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) => {
            return Err(attributes.forbidden(&format!("error validating audience \"{audience}\": {error}")));
        }
    }
    let asked = ResourceAttributes {
        version: "v1",
        resource: audience,
        namespace: attributes.namespace,
        name: attributes.name,
        ..ResourceAttributes::default()
    };
    let verb = "request-serviceaccounts-token-audience";
    let question = Question { user: attributes.user, verb, resource: Some(asked), path: "" };
    if attributes.core.access.decide(&question).await?.is_allowed() {
        return Ok(());
    }
    let why = format!(
        "audience \"{audience}\" not found in pod spec volume, {} is not authorized to request tokens for this audience",
        attributes.user.username
    );
    Err(attributes.forbidden(&why))
}

/// Whether a volume of the pod is given tokens for an audience; an error where that is unknown of a volume.
async fn names_audience(attributes: &Attributes<'_>, pod: &Value, audience: &str) -> Result<bool, String> {
    let mut errors = Vec::new();
    for volume in object::list(pod, &["spec", "volumes"]) {
        if projects_audience(volume, audience) {
            return Ok(true);
        }
        match by_driver(attributes, pod, volume, audience).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => errors.push(error.message),
        }
    }
    match errors.as_slice() {
        [] => Ok(false),
        [error] => Err(error.clone()),
        errors => Err(format!("[{}]", errors.join(", "))),
    }
}

fn projects_audience(volume: &Value, audience: &str) -> bool {
    object::list(volume, &["projected", "sources"]).iter().any(|source| {
        let token = source.get("serviceAccountToken").filter(|token| !token.is_null());
        token.is_some_and(|token| object::text(token, &["audience"]) == audience)
    })
}

/// Whether the driver of a volume asks for tokens for an audience.
async fn by_driver(
    attributes: &Attributes<'_>,
    pod: &Value,
    volume: &Value,
    audience: &str,
) -> Result<bool, ApiStatus> {
    let Some(driver) = driver_of(attributes, pod, volume).await? else { return Ok(false) };
    let driver = get(attributes, "storage.k8s.io", "csidrivers", "", &driver).await?;
    let requests = object::list(&driver, &["spec", "tokenRequests"]);
    Ok(requests.iter().any(|request| object::text(request, &["audience"]) == audience))
}

async fn driver_of(attributes: &Attributes<'_>, pod: &Value, volume: &Value) -> Result<Option<String>, ApiStatus> {
    let claim = match claim_of(pod, volume) {
        Some(claim) => claim,
        None => return Ok(driver_named(volume)),
    };
    let claim = get(attributes, "", "persistentvolumeclaims", attributes.namespace, &claim).await?;
    let bound = object::text(&claim, &["spec", "volumeName"]);
    let bound = get(attributes, "", "persistentvolumes", "", bound).await?;
    Ok(driver_named(&bound["spec"]))
}

/// The name of the claim behind a volume of a pod.
fn claim_of(pod: &Value, volume: &Value) -> Option<String> {
    if object::at(volume, &["ephemeral", "volumeClaimTemplate"]).is_some() {
        return Some(format!("{}-{}", object::name(pod), object::text(volume, &["name"])));
    }
    object::at(volume, &["persistentVolumeClaim", "claimName"]).and_then(Value::as_str).map(str::to_owned)
}

/// The driver that a source of a volume stands for.
fn driver_named(source: &Value) -> Option<String> {
    let named = object::text(source, &["csi", "driver"]);
    if !named.is_empty() {
        return Some(named.to_owned());
    }
    let found = MIGRATED.iter().find(|(field, _)| source.get(*field).is_some_and(|value| !value.is_null()));
    found.map(|(_, driver)| (*driver).to_owned())
}

/// A built-in object, or upstream's 404.
async fn get(
    attributes: &Attributes<'_>,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Value, ApiStatus> {
    let found = attributes.core.object(group, resource, namespace, name).await?;
    found.map(|(_, object)| object).ok_or_else(|| {
        let resource = GroupResource { group: group.to_owned(), resource: resource.to_owned() };
        ApiStatus::not_found(&resource, name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_lead_to_audiences_and_drivers() {
        let projected =
            json!({"projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": {"audience": "vault"}}]}});
        assert!(projects_audience(&projected, "vault") && !projects_audience(&projected, ""));
        let plain = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        assert!(projects_audience(&plain, ""), "the API server's own");
        let pod = json!({"metadata": {"name": "web"}});
        let claim = |volume: Value| claim_of(&pod, &volume);
        assert_eq!(claim(json!({"persistentVolumeClaim": {"claimName": "c"}})).as_deref(), Some("c"));
        assert_eq!(claim(json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}})).as_deref(), Some("web-v"));
        assert_eq!(claim(json!({"emptyDir": {}})), None);
        assert_eq!(driver_named(&json!({"csi": {"driver": "d"}})).as_deref(), Some("d"));
        assert_eq!(driver_named(&json!({"azureFile": {}})).as_deref(), Some("file.csi.azure.com"));
        assert_eq!(driver_named(&json!({"emptyDir": {}})), None);
    }
}
