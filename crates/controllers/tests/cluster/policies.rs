//! Statuses of admission policies.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
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
        "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:12: undefined field 'replica'\n \
         | object.spec.replica > 1\n | ...........^\n"
    );
}
