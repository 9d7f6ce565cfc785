//! What a machine that joins learns of a cluster that it has never seen, and how a control plane's authorities come to
//! another one: against a real API server.

use std::time::Duration;

use kedge_bootstrap::{
    BootstrapError, BootstrapToken, CertificateKey, Discovery, TokenSpec, create_token, discover, download_certs,
    public_key_pin, transferred_files, upload_certs,
};
use kedge_client::{Client, client_from_kubeconfig};
use kedge_e2e::{Host, HostOptions};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_stranger_learns_whom_to_trust_and_gets_what_it_may() {
    let options = HostOptions { control_plane_only: true, ..HostOptions::default() };
    let Some(host) = Host::up(options) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    runtime.block_on(async {
        let admin = client_from_kubeconfig(&host.kubeconfig()).await.expect("the administrator's kubeconfig is good");
        let token = BootstrapToken::generate();
        create_token(&admin, &TokenSpec::for_joining(token.clone())).await.expect("the token can be made");
        let stranger = the_cluster_is_found(&host, &token).await;
        certificates_are_transferred(&admin, &stranger).await;
    });
}

async fn the_cluster_is_found(host: &Host, token: &BootstrapToken) -> Client {
    let authority = std::fs::read_to_string(host.data_dir().join("pki/ca.crt")).expect("the authority is there");
    let pin = public_key_pin(&authority).expect("it is a certificate");
    let endpoint = format!("{}:{}", host.address(), host.port());
    let find = |token: &BootstrapToken, pins: &[String], patience| {
        let discovery = Discovery::Token { endpoint: endpoint.clone(), token: token.clone(), pins: pins.to_vec() };
        async move { discover(&discovery, patience).await }
    };
    for pins in [&[][..], std::slice::from_ref(&pin)] {
        let found = find(token, pins, PATIENCE).await.expect("the cluster is found");
        assert_eq!((found.endpoint(), found.authority_pem.as_str()), (endpoint.as_str(), authority.as_str()));
    }
    let other = format!("sha256:{}", "0".repeat(64));
    let refused = find(token, &[other], PATIENCE).await.expect_err("the pin is another's").to_string();
    let expected =
        format!("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys \"{pin}\" are pinned");
    assert_eq!(refused, expected);
    let unknown = BootstrapToken::generate();
    let refused = find(&unknown, &[], Duration::ZERO).await.expect_err("nobody knows the token").to_string();
    let id = unknown.id();
    assert_eq!(refused, format!("could not find a JWS signature in the cluster-info ConfigMap for token ID {id:?}"));
    let forged = format!("{}.{}", token.id(), "0".repeat(16)).parse().expect("it is a token");
    let refused = find(&forged, &[], PATIENCE).await.expect_err("the secret is wrong").to_string();
    assert_eq!(refused, "failed to verify JWS signature of received cluster info object, can't trust this API Server");
    let found = find(token, &[pin], PATIENCE).await.expect("the cluster is found");
    found.client(Some(&token.to_string())).expect("a client can be made")
}

async fn certificates_are_transferred(admin: &Client, stranger: &Client) {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for file in transferred_files(true) {
        let path = from.path().join(file);
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it can be made");
        std::fs::write(path, format!("content of {file}")).expect("a file can be written");
    }
    let key = CertificateKey::generate().expect("a key can be made");
    let lines = std::sync::Mutex::new(Vec::new());
    let say = |line: &str| lines.lock().expect("nobody panicked").push(line.to_owned());
    // Nothing was uploaded yet, and nobody may look.
    let refused = download_certs(stranger, to.path(), &key, true, &say).await.expect_err("nothing is there");
    assert!(matches!(refused, BootstrapError::Api { .. }), "{refused}");
    let missing = download_certs(admin, to.path(), &key, true, &say).await.expect_err("nothing is there").to_string();
    assert_eq!(
        missing,
        "error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret \
         might have expired. Please, run `kedge init phase upload-certs --upload-certs` on a control plane to generate a new \
         one"
    );
    for _ in 0..2 {
        upload_certs(admin, from.path(), &key, true, &say).await.expect("they can be uploaded, and again");
    }
    let other = CertificateKey::generate().expect("a key can be made");
    let refused = download_certs(stranger, to.path(), &other, true, &say).await.expect_err("the key is another");
    assert!(refused.to_string().starts_with("error decoding secret data with provided key"), "{refused}");
    assert_eq!(std::fs::read_dir(to.path()).expect("the directory is there").count(), 0);
    download_certs(stranger, to.path(), &key, true, &say).await.expect("they can be downloaded");
    for file in transferred_files(true) {
        let text = std::fs::read_to_string(to.path().join(file)).expect("the file came");
        assert_eq!(text, format!("content of {file}"));
    }
    let lines = lines.lock().expect("nobody panicked");
    let first =
        "[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace";
    assert!(lines.iter().any(|line| line == first), "{lines:?}");
}
