//! ServiceAccount: every pod runs as a service account and finds its token, the cluster's CA and its namespace in
//! `/var/run/secrets/kubernetes.io/serviceaccount`.

use std::time::Duration;

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use kedge_store::Key;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::core::random_suffix;
use crate::object;
use crate::reply::store_error;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How long a new namespace's default account is waited for; its controller makes it.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "pods") && attributes.operation == Operation::Create
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiStatus> {
        if object::annotation(pod, MIRROR).is_some() {
            return check_mirror(attributes, pod);
        }
        let given = object::text(pod, &["spec", "serviceAccountName"]);
        let name = if given.is_empty() { "default".to_owned() } else { given.to_owned() };
        let account = account(attributes, &name).await?;
        let spec = object::child_mut(pod, "spec");
        for field in ["serviceAccountName", "serviceAccount"] {
            spec.insert(field.to_owned(), name.as_str().into());
        }
        if wants_token(pod, &account) {
            mount(pod);
        }
        if object::list(pod, &["spec", "imagePullSecrets"]).is_empty()
            && let Some(secrets) = account.get("imagePullSecrets")
        {
            object::child_mut(pod, "spec").insert("imagePullSecrets".to_owned(), secrets.clone());
        }
        Ok(())
    }
}

/// Mirror pods stand for what a node runs by itself, without credentials of the cluster.
fn check_mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiStatus> {
    if !object::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let projects_token = |volume: &Value| {
        object::list(volume, &["projected", "sources"]).iter().any(|source| source.get("serviceAccountToken").is_some())
    };
    if object::list(pod, &["spec", "volumes"]).iter().any(projects_token) {
        return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

async fn account(attributes: &Attributes<'_>, name: &str) -> Result<Value, ApiStatus> {
    let (core, namespace) = (attributes.core, attributes.namespace);
    if let Some((_, account)) = core.object("", "serviceaccounts", namespace, name).await? {
        return Ok(account);
    }
    if name == "default" {
        let key = Key::new(format!("/registry/serviceaccounts/{namespace}/{name}"));
        let mut watch = core.store.watch(key.as_str(), core.store.revision()).map_err(store_error)?;
        // It may have come between the look and the watch.
        for wait in [Duration::ZERO, DEFAULT_ACCOUNT_WAIT] {
            let _ = tokio::time::timeout(wait, watch.next(1)).await;
            if let Some((_, account)) = core.object("", "serviceaccounts", namespace, name).await? {
                return Ok(account);
            }
        }
    }
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
    Err(attributes.forbidden(&why))
}

fn wants_token(pod: &Value, account: &Value) -> bool {
    let of_pod = object::at(pod, &["spec", "automountServiceAccountToken"]).and_then(Value::as_bool);
    let of_account = account.get("automountServiceAccountToken").and_then(Value::as_bool);
    of_pod.or(of_account).unwrap_or(true)
}

/// Mounts the token into every container that has nothing at its place.
fn mount(pod: &mut Value) {
    let volumes = object::list(pod, &["spec", "volumes"]);
    let own = |volume: &&Value| {
        object::text(volume, &["name"]).starts_with(VOLUME_PREFIX) && volume.get("projected").is_some()
    };
    let present = volumes.iter().find(own).map(|volume| object::text(volume, &["name"]).to_owned());
    let name = present.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix(5)));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let mounts = object::list(container, &["volumeMounts"]);
            if mounts.iter().any(|mount| object::text(mount, &["mountPath"]) == MOUNT_PATH) || !container.is_object() {
                continue;
            }
            needed = true;
            let mut mounts = mounts.to_vec();
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container["volumeMounts"] = mounts.into();
        }
    }
    if needed && present.is_none() {
        let mut volumes = object::list(pod, &["spec", "volumes"]).to_vec();
        volumes.push(volume(&name));
        pod["spec"]["volumes"] = volumes.into();
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount(&mut pod);
        let name = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with(VOLUME_PREFIX));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], name.as_str());
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let before = pod.clone();
        mount(&mut pod);
        assert_eq!(pod, before);
    }

    #[test]
    fn the_pod_has_the_last_word() {
        for (pod, account, expected) in [
            (json!(null), json!(null), true),
            (json!(null), json!(false), false),
            (json!(true), json!(false), true),
            (json!(false), json!(true), false),
        ] {
            let pod = json!({"spec": {"automountServiceAccountToken": pod}});
            let account = json!({"automountServiceAccountToken": account});
            assert_eq!(wants_token(&pod, &account), expected, "{pod} {account}");
        }
    }
}
