//! DefaultStorageClass, PersistentVolumeClaimResize, StorageObjectInUseProtection and DefaultIngressClass: what a claim or
//! Ingress takes where it does not say, whether a claim may grow, and that neither claim nor volume goes while in use.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, Quantity};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, objects};
use crate::object;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
const DEFAULT_INGRESS: &str = "ingressclass.kubernetes.io/is-default-class";

#[derive(Debug, Default)]
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "persistentvolumeclaims") && attributes.operation == Operation::Create
    }

    async fn admit(&self, attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), ApiStatus> {
        // An empty name asks for no class; only an absent one is filled in.
        let named = object::at(claim, &["spec", "storageClassName"]).is_some();
        if named || object::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some() {
            return Ok(());
        }
        let classes = objects(attributes.core, "storage.k8s.io", "storageclasses", "").await?;
        if let Some(class) = newest(classes, &[DEFAULT_CLASS, BETA_DEFAULT_CLASS]) {
            object::child_mut(claim, "spec").insert("storageClassName".to_owned(), object::name(&class).into());
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("networking.k8s.io", "ingresses") && attributes.operation == Operation::Create
    }

    async fn admit(&self, attributes: &Attributes<'_>, ingress: &mut Value) -> Result<(), ApiStatus> {
        let named = object::at(ingress, &["spec", "ingressClassName"]).is_some();
        if named || object::annotation(ingress, "kubernetes.io/ingress.class").is_some() {
            return Ok(());
        }
        let classes = objects(attributes.core, "networking.k8s.io", "ingressclasses", "").await?;
        if let Some(class) = newest(classes, &[DEFAULT_INGRESS]) {
            object::child_mut(ingress, "spec").insert("ingressClassName".to_owned(), object::name(&class).into());
        }
        Ok(())
    }
}

/// The youngest of the objects that carry one of `annotations` as `true`; the first by name among equals.
fn newest(classes: Vec<Value>, annotations: &[&str]) -> Option<Value> {
    let is_default = |class: &Value| annotations.iter().any(|key| object::annotation(class, key) == Some("true"));
    let mut defaults: Vec<Value> = classes.into_iter().filter(is_default).collect();
    defaults.sort_by(|a, b| {
        let newer = object::meta(b, "creationTimestamp").cmp(object::meta(a, "creationTimestamp"));
        newer.then_with(|| object::name(a).cmp(object::name(b)))
    });
    defaults.into_iter().next()
}

#[derive(Debug, Default)]
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "persistentvolumeclaims") && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>, claim: &Value) -> Result<(), ApiStatus> {
        let size = |claim: &Value| {
            let text = object::text(claim, &["spec", "resources", "requests", "storage"]);
            text.parse::<Quantity>().unwrap_or(Quantity::ZERO)
        };
        let Some(old) = attributes.old.filter(|old| size(claim) > size(old)) else { return Ok(()) };
        if object::text(old, &["status", "phase"]) != "Bound" {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = object::text(claim, &["spec", "storageClassName"]);
        let found = attributes.core.object("storage.k8s.io", "storageclasses", "", class).await?;
        let expands = found.is_some_and(|(_, class)| class.get("allowVolumeExpansion") == Some(&Value::Bool(true)));
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        if expands { Ok(()) } else { Err(attributes.forbidden(why)) }
    }
}

#[derive(Debug, Default)]
pub(super) struct StorageObjectInUseProtection;

/// The finalizer that the protection controllers take away, by resource.
const PROTECTIONS: [(&str, &str); 2] =
    [("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && PROTECTIONS.iter().any(|(resource, _)| attributes.is_main("", resource))
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let mut finalizers: Vec<String> = object::finalizers(object).into_iter().map(str::to_owned).collect();
        let own = PROTECTIONS.iter().find(|(resource, _)| attributes.is_main("", resource)).map(|(_, own)| *own);
        if let Some(own) = own.filter(|own| !finalizers.iter().any(|finalizer| finalizer == own)) {
            finalizers.push(own.to_owned());
            object::set_finalizers(object, finalizers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, created: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {DEFAULT_CLASS: default}}});
        let classes =
            vec![class("a", "1", "true"), class("b", "2", "true"), class("c", "3", "false"), class("d", "2", "true")];
        assert_eq!(newest(classes, &[DEFAULT_CLASS]).unwrap()["metadata"]["name"], "b");
        assert_eq!(newest(vec![class("c", "3", "false")], &[DEFAULT_CLASS]), None);
    }
}
