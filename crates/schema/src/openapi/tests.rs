//! Cases of the documents that need nothing of upstream's: links, operations, definitions and the protobuf form.

use serde_json::{Value, json};

use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn deployments() -> ServedResource {
    ServedResource {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        resource: "deployments".to_owned(),
        kind: "Deployment".to_owned(),
        namespaced: true,
        verbs: texts(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
        subresources: vec![ServedSubresource {
            name: "scale".to_owned(),
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
            verbs: texts(&["get", "patch", "update"]),
        }],
        schema: None,
    }
}

fn unknown() -> ServedResource {
    ServedResource {
        group: "example.com".to_owned(),
        resource: "things".to_owned(),
        kind: "Thing".to_owned(),
        namespaced: false,
        verbs: texts(&["get", "list"]),
        subresources: Vec::new(),
        ..deployments()
    }
}

#[test]
fn the_index_links_to_every_group_version() {
    let resources = [deployments(), unknown()];
    let index: Value = serde_json::from_slice(&openapi_v3_index(&resources)).unwrap();
    let hash = openapi_v3_hash("apps", "v1", &resources);
    assert_eq!(
        index["paths"]["apis/apps/v1"],
        json!({"serverRelativeURL": format!("/openapi/v3/apis/apps/v1?hash={hash}")})
    );
    assert!(index["paths"]["apis/example.com/v1"].is_object());
    let mut fewer = deployments();
    fewer.verbs.pop();
    assert_ne!(openapi_v3_hash("apps", "v1", &[fewer]), hash);
    assert_eq!(openapi_v3("apps", "v2", &resources), None);
}

#[test]
fn clients_find_what_they_look_for() {
    let resources = [deployments(), unknown()];
    let document: Value = serde_json::from_slice(&openapi_v3("apps", "v1", &resources).unwrap()).unwrap();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(scale["operationId"], "replaceAppsV1NamespacedDeploymentScale");
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"];
    assert_eq!(container["required"], json!(["name"]));
    assert_eq!(container["properties"]["ports"]["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    let thing: Value = serde_json::from_slice(&openapi_v3("example.com", "v1", &resources).unwrap()).unwrap();
    assert_eq!(thing["components"]["schemas"]["com.example.v1.Thing"], json!({"type": "object"}));
}

#[test]
fn the_metadata_of_every_object_is_explained() {
    let resources = [deployments()];
    let third: Value = serde_json::from_slice(&openapi_v3("apps", "v1", &resources).unwrap()).unwrap();
    let second: Value = serde_json::from_slice(&openapi_v2_json(&resources, &[])).unwrap();
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let (third, second) = (&third["components"]["schemas"][name], &second["definitions"][name]);
    for fields in [third, second].map(|schema| schema["properties"].as_object().unwrap()) {
        for (field, schema) in fields {
            assert!(schema["description"].as_str().is_some_and(|text| text.ends_with('.')), "{field}: {schema}");
        }
        let created = fields["creationTimestamp"]["description"].as_str().unwrap();
        assert!(created.starts_with("CreationTimestamp is a timestamp"), "{created}");
    }
    let time = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Time";
    assert_eq!(third["properties"]["creationTimestamp"]["allOf"], json!([{"$ref": time}]));
}

/// The bytes of the first field with this number, in a message.
fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    let mut rest = message;
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let length = varint(&mut rest);
        match key & 7 {
            0 => continue,
            _ => {
                let (content, behind) = rest.split_at(usize::try_from(length).unwrap());
                if key >> 3 == number {
                    return Some(content);
                }
                rest = behind;
            }
        }
    }
    None
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, behind) = rest.split_first().unwrap();
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

#[test]
fn the_protobuf_form_has_gnostics_field_numbers() {
    let bytes = openapi_v2_protobuf(&[deployments()], &[]);
    assert_eq!(field(&bytes, 1), Some(b"2.0".as_slice()));
    let path = field(field(&bytes, 8).unwrap(), 2).unwrap();
    assert_eq!(field(path, 1), Some(b"/apis/apps/v1/deployments".as_slice()));
    let get = field(field(path, 2).unwrap(), 2).unwrap();
    assert_eq!(field(get, 5), Some(b"listAppsV1DeploymentForAllNamespaces".as_slice()));
    let parameter = field(field(field(field(get, 8).unwrap(), 1).unwrap(), 2).unwrap(), 3).unwrap();
    assert_eq!((field(parameter, 2), field(parameter, 4)), (Some(b"query".as_slice()), Some(b"continue".as_slice())));
    let definition = field(field(&bytes, 9).unwrap(), 1).unwrap();
    assert_eq!(field(definition, 1), Some(b"io.k8s.api.apps.v1.Deployment".as_slice()));
    let schema = field(definition, 2).unwrap();
    let extension = field(schema, 31).unwrap();
    assert_eq!(field(extension, 1), Some(b"x-kubernetes-group-version-kind".as_slice()));
    let yaml = field(field(extension, 2).unwrap(), 2).unwrap();
    assert_eq!(yaml, br#"[{"group":"apps","kind":"Deployment","version":"v1"}]"#);
}

#[test]
fn the_json_form_has_the_same_content() {
    let document: Value = serde_json::from_slice(&openapi_v2_json(&[deployments()], &[])).unwrap();
    assert_eq!(document["swagger"], "2.0");
    let spec = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert_eq!(spec["template"], json!({"$ref": "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"}));
    assert_eq!(spec["replicas"], json!({"type": "integer", "format": "int32"}));
}
