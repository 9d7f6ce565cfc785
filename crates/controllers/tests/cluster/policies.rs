//! Statuses of admission policies.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use super::harness::Cluster;

#[tokio::test]
async fn policies_are_checked_against_the_types_that_they_match() {
    let cluster = Cluster::start().await;
    let rule =
        json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.replicas > 1"}, {"expression": "object.spec.replica > 1"}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    cluster.create_in_cluster::<ValidatingAdmissionPolicy>(policy).await;
    let observed = |policy: &ValidatingAdmissionPolicy, generation: i64| {
        policy.status.as_ref().is_some_and(|status| status.observed_generation == Some(generation))
    };
    let all =
        cluster.until::<ValidatingAdmissionPolicy>("a status", |all| all.iter().any(|one| observed(one, 1))).await;
    let checking = all[0].status.clone().unwrap().type_checking.unwrap();
    let warnings = checking.expression_warnings.unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].field_ref, "spec.validations[1].expression");
    assert_eq!(
        warnings[0].warning,
        "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n \
         | object.spec.replica > 1\n | ...........^\n"
    );
}

#[tokio::test]
async fn policies_are_checked_against_custom_types() {
    let cluster = Cluster::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}}}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let definition = json!({"metadata": {"name": "tools.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "tools", "kind": "Tool"}, "versions": [version]}});
    cluster.create_in_cluster::<CustomResourceDefinition>(definition).await;
    let is_established = |definition: &CustomResourceDefinition| {
        let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    };
    cluster.until::<CustomResourceDefinition>("it is served", |all| all.iter().any(|one| is_established(one))).await;
    let rule =
        json!({"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["tools"], "operations": ["CREATE"]});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [
        {"expression": "object.spec.size > 1 && object.metadata.labels['a'] == 'b'"},
        {"expression": "object.spec.sise > 1"}]});
    cluster.create_in_cluster::<ValidatingAdmissionPolicy>(json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let is_observed = |policy: &ValidatingAdmissionPolicy| {
        policy.status.as_ref().is_some_and(|status| status.observed_generation == Some(1))
    };
    let all =
        cluster.until::<ValidatingAdmissionPolicy>("a status", |all| all.iter().any(|one| is_observed(one))).await;
    let warnings = all[0].status.clone().unwrap().type_checking.unwrap().expression_warnings.unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(
        warnings[0].warning,
        "example.com/v1, Kind=Tool: ERROR: <input>:1:12: undefined field 'sise'\n \
         | object.spec.sise > 1\n | ...........^\n"
    );
}
