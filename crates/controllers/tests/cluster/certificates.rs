//! Certificates that are asked for, approved and signed; tokens and the signatures they leave.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kedge_controllers::{CertificateSigner, Config, RequestedIdentity};
use kedge_pki::{CertificateAuthority, CertificateFacts, CertificateRequest, LeafRequest, PendingIdentity};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::harness::Cluster;

struct Signer(CertificateAuthority);

impl CertificateSigner for Signer {
    fn sign(&self, _: &str, request: &[u8], usages: &[String], lifetime: Duration) -> Result<Vec<u8>, String> {
        let signed = self.0.sign_request(&CertificateRequest::read(request)?, usages, lifetime);
        signed.map(String::into_bytes).map_err(|error| error.to_string())
    }

    fn inspect(&self, request: &[u8]) -> Result<RequestedIdentity, String> {
        let request = CertificateRequest::read(request)?;
        Ok(RequestedIdentity {
            common_name: request.common_name,
            organizations: request.organizations,
            ..RequestedIdentity::default()
        })
    }
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
    let controllers = ["*", "bootstrapsigner", "tokencleaner"].map(str::to_owned).to_vec();
    let config = Config { controllers, ..Config::default() };
    Cluster::signing(config, Some(Arc::new(Signer(authority)))).await
}

fn request(name: &str, signer: &str, subject: &LeafRequest) -> CertificateSigningRequest {
    let pending = PendingIdentity::new(subject).unwrap();
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"signerName": signer, "usages": ["digital signature", "client auth"], "request": ""},
    }))
    .unwrap();
    request.spec.request = ByteString(pending.request_pem.into_bytes());
    request
}

fn certificate(all: &[Arc<CertificateSigningRequest>], name: &str) -> Option<CertificateFacts> {
    let found = all.iter().find(|request| request.metadata.name.as_deref() == Some(name))?;
    let pem = found.status.as_ref()?.certificate.as_ref()?;
    Some(CertificateFacts::read(std::str::from_utf8(&pem.0).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_is_signed_and_nodes_are_approved_by_permission() {
    let cluster = cluster().await;
    let requests = Api::<CertificateSigningRequest>::all(cluster.client.clone());
    let node = LeafRequest::client("system:node:new", &["system:nodes"]);
    let kubelet = request("node-csr", "kubernetes.io/kube-apiserver-client-kubelet", &node);
    requests.create(&PostParams::default(), &kubelet).await.unwrap();
    // The administrator may do everything, `nodeclient` included.
    let all = cluster.until("the node's certificate", |all| certificate(all, "node-csr").is_some()).await;
    let facts = certificate(&all, "node-csr").unwrap();
    assert_eq!(
        (facts.common_name.as_str(), facts.organizations.as_slice()),
        ("system:node:new", &["system:nodes".to_owned()][..])
    );
    let jane = request("jane", "kubernetes.io/kube-apiserver-client", &LeafRequest::client("jane", &["dev"]));
    requests.create(&PostParams::default(), &jane).await.unwrap();
    let foreign = request("foreign", "example.com/own", &LeafRequest::client("joe", &["dev"]));
    requests.create(&PostParams::default(), &foreign).await.unwrap();
    for name in ["jane", "foreign"] {
        let mut asked = requests.get(name).await.unwrap();
        let condition: Value = json!({"type": "Approved", "status": "True", "reason": "x", "message": "y"});
        asked.status.get_or_insert_default().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
        requests.replace_subresource("approval", name, &PostParams::default(), &asked).await.unwrap();
    }
    let all = cluster.until("jane's certificate", |all| certificate(all, "jane").is_some()).await;
    assert_eq!(certificate(&all, "jane").unwrap().issuer, "kubernetes");
    assert_eq!(certificate(&all, "foreign"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_info_is_signed_by_each_token_and_old_tokens_go() {
    let cluster = cluster().await;
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), "kube-system");
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "kube-public");
    let map = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "where it is"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    for (id, expiration) in [("abcdef", "2199-01-01T00:00:00Z"), ("bcdefg", "2020-01-01T00:00:00Z")] {
        let token = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-signing": "true"}});
        secrets.create(&PostParams::default(), &serde_json::from_value(token).unwrap()).await.unwrap();
    }
    let signature = kedge_auth::detached_signature("where it is", "abcdef", "0123456789abcdef");
    let has = |all: &[Arc<ConfigMap>], signature: Option<&String>| {
        let found = all.iter().find(|map| map.metadata.name.as_deref() == Some("cluster-info"));
        let data = found.and_then(|map| map.data.as_ref());
        data.is_some_and(|data| {
            data.get("jws-kubeconfig-abcdef") == signature && !data.contains_key("jws-kubeconfig-bcdefg")
        })
    };
    cluster.until("the signature", |all| has(all, Some(&signature))).await;
    cluster.until("the old token's end", |all: &[Arc<Secret>]| all.len() == 1).await;
    maps.patch("cluster-info", &PatchParams::default(), &Patch::Merge(json!({"data": {"kubeconfig": "elsewhere"}})))
        .await
        .unwrap();
    let signature = kedge_auth::detached_signature("elsewhere", "abcdef", "0123456789abcdef");
    cluster.until("the new signature", |all| has(all, Some(&signature))).await;
    secrets.delete("bootstrap-token-abcdef", &DeleteParams::default()).await.unwrap();
    cluster.until("no signature", |all| has(all, None)).await;
}
