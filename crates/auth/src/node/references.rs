//! What pods and persistent volumes refer to.
//!
//! Not here: which node they are on.

use serde_json::Value;

/// A namespaced object that something refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    pub(super) resource: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What a persistent volume refers to, each by namespace and name.
#[derive(Debug)]
pub(super) struct VolumeReferences {
    pub(super) claim: (String, String),
    /// What a driver is given on the node.
    pub(super) secrets: Vec<(String, String)>,
}

/// Plugins of the tree whose volumes name a Secret in `secretRef`.
const WITH_SECRET: [&str; 7] = ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];

/// Volumes that nothing of the API is needed for.
const PLAIN_VOLUMES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// What others need.
const API_VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// What parts of projected volumes need.
const API_PROJECTIONS: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// What a bound volume refers to.
pub(super) fn volume_references(volume: &Value) -> Option<VolumeReferences> {
    let spec = &volume["spec"];
    let claim = (spec["claimRef"]["namespace"].as_str()?.to_owned(), spec["claimRef"]["name"].as_str()?.to_owned());
    // Where no namespace is named it is the claim's.
    let named = |namespace: &Value, name: &Value| {
        let name = name.as_str().filter(|name| !name.is_empty())?.to_owned();
        let namespace = namespace.as_str().filter(|namespace| !namespace.is_empty()).unwrap_or(&claim.0);
        Some((namespace.to_owned(), name))
    };
    let reference = |reference: &Value| named(&reference["namespace"], &reference["name"]);
    let of_csi = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    let mut secrets: Vec<_> = of_csi.iter().filter_map(|field| reference(&spec["csi"][*field])).collect();
    secrets.extend(WITH_SECRET.iter().filter_map(|plugin| reference(&spec[*plugin]["secretRef"])));
    let azure = &spec["azureFile"];
    secrets.extend(named(&azure["secretNamespace"], &azure["secretName"]));
    Some(VolumeReferences { claim, secrets })
}

/// The names of the Secrets of its own namespace that a pod names anywhere.
pub fn secrets_of_pod(pod: &Value) -> Vec<String> {
    let references = references_of(pod, "");
    references.into_iter().filter(|found| found.resource == "secrets").map(|found| found.name).collect()
}

/// The first thing of the API that a pod refers to, in upstream's words; an error where a volume is of no known type.
pub fn api_reference_of_pod(pod: &Value) -> Result<Option<&'static str>, String> {
    let references = references_of(pod, "");
    let has = |resource: &&&str| references.iter().any(|found| found.resource == **resource);
    if let Some(resource) = ["serviceaccounts", "secrets", "configmaps"].iter().find(has) {
        return Ok(Some(resource));
    }
    if items(&pod["spec"]["resourceClaims"]).next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in items(&pod["spec"]["volumes"]) {
        if let Some(resource) = api_reference_of_volume(volume)? {
            return Ok(Some(resource));
        }
    }
    Ok(None)
}

fn api_reference_of_volume(volume: &Value) -> Result<Option<&'static str>, String> {
    let name = volume["name"].as_str().unwrap_or_default();
    let has = |field: &str| volume.get(field).is_some_and(|source| !source.is_null());
    if PLAIN_VOLUMES.into_iter().any(has) {
        return Ok(None);
    }
    if let Some((_, resource)) = API_VOLUMES.iter().find(|(field, _)| has(field)) {
        return Ok(Some(resource));
    }
    if !has("projected") {
        return Err(format!("unknown volume type for volume  {name:?}"));
    }
    for source in items(&volume["projected"]["sources"]) {
        let has = |field: &str| source.get(field).is_some_and(|source| !source.is_null());
        if let Some((_, resource)) = API_PROJECTIONS.iter().find(|(field, _)| has(field)) {
            return Ok(Some(resource));
        }
        if !has("downwardAPI") {
            return Err(format!("unknown source for projected volume {name:?}"));
        }
    }
    Ok(None)
}

/// What a pod refers to in its namespace, each once.
pub(super) fn references_of(pod: &Value, namespace: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
    };
    let spec = &pod["spec"];
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            for source in items(&container["envFrom"]) {
                add("configmaps", &source["configMapRef"]["name"]);
                add("secrets", &source["secretRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add_volume(volume, pod, &mut add);
    }
    for claim in items(&spec["resourceClaims"]) {
        add("resourceclaims", claim_name(pod, claim));
    }
    add("resourceclaims", &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]);
    found
}

fn add_volume(volume: &Value, pod: &Value, add: &mut impl FnMut(&'static str, &Value)) {
    add("secrets", &volume["secret"]["secretName"]);
    add("secrets", &volume["azureFile"]["secretName"]);
    add("configmaps", &volume["configMap"]["name"]);
    add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
    add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
    for plugin in WITH_SECRET {
        add("secrets", &volume[plugin]["secretRef"]["name"]);
    }
    for source in items(&volume["projected"]["sources"]) {
        add("secrets", &source["secret"]["name"]);
        add("configmaps", &source["configMap"]["name"]);
    }
    if volume["ephemeral"].is_object() {
        let name = format!(
            "{}-{}",
            pod["metadata"]["name"].as_str().unwrap_or_default(),
            volume["name"].as_str().unwrap_or_default()
        );
        add("persistentvolumeclaims", &Value::String(name));
    }
}

/// The name of a claim of a pod: its own, or that of the one that was made of its template, once the status tells it.
fn claim_name<'a>(pod: &'a Value, claim: &'a Value) -> &'a Value {
    if claim["resourceClaimName"].is_string() {
        return &claim["resourceClaimName"];
    }
    let made = items(&pod["status"]["resourceClaimStatuses"]).find(|status| status["name"] == claim["name"]);
    made.map_or(&Value::Null, |status| &status["resourceClaimName"])
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_named_by_pods_and_by_their_statuses() {
        let mut pod = json!({"spec": {"resourceClaims": [
            {"name": "a", "resourceClaimName": "own"},
            {"name": "b", "resourceClaimTemplateName": "t"}]}});
        let names = |pod: &Value| references_of(pod, "d").into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(&pod), ["own"]);
        pod["status"] = json!({"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "web-b-x"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "web-extended"}});
        assert_eq!(names(&pod), ["own", "web-b-x", "web-extended"]);
    }

    #[test]
    fn what_a_mirror_may_not_refer_to() {
        let check = |spec: Value, expected: Result<Option<&str>, &str>| {
            let said = api_reference_of_pod(&json!({"spec": spec}));
            assert_eq!(said.as_ref().map(|found| *found).map_err(String::as_str), expected, "{spec}");
        };
        let volume = |source: Value| json!({"volumes": [source]});
        check(volume(json!({"hostPath": {"path": "/etc"}})), Ok(None));
        check(volume(json!({"projected": {"sources": [{"downwardAPI": {}}]}})), Ok(None));
        check(json!({"serviceAccountName": "a"}), Ok(Some("serviceaccounts")));
        check(json!({"imagePullSecrets": [{"name": "s"}]}), Ok(Some("secrets")));
        check(volume(json!({"configMap": {"name": "c"}})), Ok(Some("configmaps")));
        check(json!({"resourceClaims": [{"name": "r"}]}), Ok(Some("resourceclaims")));
        check(volume(json!({"csi": {"driver": "d"}})), Ok(Some("csidrivers (via CSI volumes)")));
        let token = json!({"projected": {"sources": [{"serviceAccountToken": {}}]}});
        check(volume(token), Ok(Some("serviceaccounts (via projected volumes)")));
        check(volume(json!({"name": "v"})), Err("unknown volume type for volume  \"v\""));
    }

    #[test]
    fn volumes_name_secrets_of_their_claims_namespace_or_another() {
        let check = |source: Value, secret: Option<(&str, &str)>| {
            let mut spec = source.clone();
            spec["claimRef"] = json!({"namespace": "d", "name": "c"});
            let found = volume_references(&json!({"spec": spec})).unwrap().secrets;
            let secret = secret.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
            assert_eq!(found, Vec::from_iter(secret), "{source}");
        };
        check(json!({"rbd": {"secretRef": {"name": "s"}}}), Some(("d", "s")));
        check(json!({"iscsi": {"secretRef": {"name": "s", "namespace": "o"}}}), Some(("o", "s")));
        check(json!({"azureFile": {"secretName": "s", "secretNamespace": "o"}}), Some(("o", "s")));
        check(json!({"azureFile": {"secretName": "s"}}), Some(("d", "s")));
        check(json!({"csi": {"nodeStageSecretRef": {"name": "s", "namespace": "o"}}}), Some(("o", "s")));
        check(json!({"csi": {"controllerPublishSecretRef": {"name": "s", "namespace": "o"}}}), None);
        assert!(volume_references(&json!({"spec": {"rbd": {"secretRef": {"name": "s"}}}})).is_none(), "not bound");
    }
}
