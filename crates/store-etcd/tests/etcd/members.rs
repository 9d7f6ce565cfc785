//! An etcd of three members: one may go, two may not; and certificates.

use std::time::Duration;

use kedge_store::{CommitError, Key, Store, StoreError};
use kedge_store_etcd::{EtcdStore, Options, Tls};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::harness::{Etcd, Stores, put, put_until_done, read_until_answered, skipped_without_etcd};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_may_go_and_without_two_everything_is_refused_until_they_are_back() {
    if skipped_without_etcd("one_member_may_go_and_without_two_everything_is_refused_until_they_are_back") {
        return;
    }
    let mut etcd = Etcd::start_with(3, "http", &[]);
    let timeouts = (Duration::from_secs(2), Duration::from_secs(8));
    let options = Options { read_timeout: timeouts.0, commit_timeout: timeouts.1, ..etcd.options() };
    let store = EtcdStore::open(options).await.unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    for gone in 0..3 {
        etcd.kill(gone);
        put_until_done(&store, "/a", &format!("without {gone}")).await;
        assert_eq!(read_until_answered(&store, "/a").await, Some(format!("without {gone}")));
        etcd.launch(gone);
        etcd.wait_for_member(gone);
    }
    etcd.kill(0);
    etcd.kill(1);
    let read = store.get(&Key::new("/a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "reads must be as new as the quorum: {read:?}");
    let commit = store.commit(put("/a", "lost?")).await;
    let refused = matches!(commit, Err(CommitError::Store(StoreError::Unavailable(_) | StoreError::Timeout(_))));
    assert!(refused, "{commit:?}");
    etcd.launch(0);
    put_until_done(&store, "/a", "back").await;
    assert_eq!(read_until_answered(&store, "/a").await.as_deref(), Some("back"));
}

/// A certificate and key as PEM files, signed by `issuer`.
fn issue(issuer: &Issuer<'_, KeyPair>, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    // An etcd uses its own certificate for calls to itself as well.
    params.extended_key_usages = vec![purpose, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_presented_and_checked() {
    if skipped_without_etcd("certificates_are_presented_and_checked") {
        return;
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let (server, client) =
        (issue(&issuer, ExtendedKeyUsagePurpose::ServerAuth), issue(&issuer, ExtendedKeyUsagePurpose::ClientAuth));
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let flags = [
        format!("--cert-file={}", file("server.crt", &server.0)),
        format!("--key-file={}", file("server.key", &server.1)),
        format!("--trusted-ca-file={}", file("ca.crt", &ca)),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start_with(1, "https", &flags);
    let with = |ca: &str, identity: Option<&(String, String)>, seconds| {
        let identity = identity.map(|(certificate, key)| (certificate.clone().into_bytes(), key.clone().into_bytes()));
        let tls = Tls { ca: Some(ca.as_bytes().to_vec()), identity };
        let (open_timeout, read_timeout) = (Duration::from_secs(seconds), Duration::from_secs(1));
        EtcdStore::open(Options { tls, open_timeout, read_timeout, ..etcd.options() })
    };
    let store = with(&ca, Some(&client), 60).await.unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    let stranger = CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    for refused in [with(&ca, None, 1).await, with(&stranger.pem(), Some(&client), 1).await] {
        assert!(refused.is_err(), "a stranger gets in on neither side");
    }
}
