//! Rotations on directories: steps that were cut, further control planes, what is left of an abort.

use std::fs;

use kedge_pki::{
    Identity, KnownCertificate, KubeconfigCluster, KubeconfigUser, LeafRequest, kubeconfig_certificate, signer_in,
    write_kubeconfig, write_private, write_public,
};

use super::*;

/// A directory with an old authority and a new one that is staged.
struct Staged {
    dir: tempfile::TempDir,
    dirs: CertificateDirs,
    old_key: String,
    new_key: String,
}

impl Staged {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
        let authority = |name: &str| {
            let made = CertificateAuthority::ensure(&dirs.pki, name, "kubernetes").unwrap();
            (made.certificate_pem().to_owned(), fs::read_to_string(dirs.pki.join(format!("{name}.key"))).unwrap())
        };
        let ((old, old_key), (new, new_key)) = (authority("ca"), authority(NEXT));
        write_public(&dirs.pki.join("ca.crt"), bundle_of(&[&old, &new]).as_bytes()).unwrap();
        Self { dir, dirs, old_key, new_key }
    }

    fn rotation(&self) -> AuthorityRotation<'static> {
        AuthorityRotation::new(self.dirs.clone(), false, &|_| {})
    }

    fn key(&self, name: &str) -> String {
        fs::read_to_string(self.dirs.pki.join(name)).unwrap_or_default()
    }
}

#[test]
fn a_switch_that_was_cut_is_repeated_and_keeps_the_old_key() {
    // After which of its writes it was killed: the key put aside, the new key, the bundle, all of it.
    for cut in 0..=3 {
        let staged = Staged::new();
        let rotation = staged.rotation();
        let files = rotation.files().unwrap();
        let next = files.next.clone().unwrap();
        let write = |name: &str, text: &str| write_private(&staged.dirs.pki.join(name), text.as_bytes()).unwrap();
        if cut > 0 {
            write(PREVIOUS_KEY, &staged.old_key);
        }
        if cut > 1 {
            write("ca.key", &staged.new_key);
        }
        if cut > 2 {
            rotation.trust(&bundle_of(&[&next, &files.bundle])).unwrap();
        }
        let now = rotation.files().unwrap();
        assert_eq!(now.stage(), if cut > 1 { Stage::Switching } else { Stage::Staged }, "{cut}");
        for _ in 0..2 {
            let bundle = rotation.exchange(&rotation.files().unwrap()).unwrap();
            assert_eq!(certificates_in(&bundle)[0], certificates_in(&next)[0], "{cut}");
            assert_eq!(staged.key(PREVIOUS_KEY), staged.old_key, "{cut}");
            assert_eq!(staged.key("ca.key"), staged.new_key, "{cut}");
        }
        rotation.remove(&[format!("{NEXT}.crt")]).unwrap();
        assert_eq!(rotation.files().unwrap().stage(), Stage::Switched, "{cut}");
    }
}

#[test]
fn a_further_control_plane_follows_and_an_aborted_one_is_refused() {
    let first = Staged::new();
    let next = Identity { certificate_pem: first.key("ca-next.crt"), key_pem: first.new_key.clone() };
    let second = Staged::new();
    let published = first.key("ca.crt");
    // It has the first one's authority, and heard of the next.
    for (name, text) in [("ca.crt", &published), ("ca.key", &first.old_key)] {
        fs::write(second.dirs.pki.join(name), text).unwrap();
    }
    let rotation = second.rotation();
    let files = rotation.files().unwrap();
    assert_eq!(files.stage(), Stage::Behind);
    let alone = certificates_in(&published)[0].clone();
    let error = rotation.adopt(&files, &next, &alone).unwrap_err().to_string();
    assert!(error.contains("was aborted, or is over"), "{error}");
    rotation.adopt(&files, &next, &published).unwrap();
    let files = rotation.files().unwrap();
    assert_eq!((files.stage(), second.key("ca-next.key")), (Stage::Staged, first.new_key.clone()));
    rotation.exchange(&files).unwrap();
    assert_eq!(second.key("ca.key"), first.new_key);
    assert_eq!(second.key(PREVIOUS_KEY), first.old_key);
    // Finished elsewhere: the bundle has become one.
    rotation.trust(&next.certificate_pem).unwrap();
    rotation.finish_here().unwrap();
    assert_eq!(second.key(PREVIOUS_KEY), "");
    assert!(rotation.finish_here().is_err() && second.dir.path().exists());
}

#[test]
fn what_is_left_of_an_abort_elsewhere_is_removed() {
    let staged = Staged::new();
    let rotation = staged.rotation();
    let own = certificates_in(&rotation.files().unwrap().bundle)[0].clone();
    rotation.trust(&own).unwrap();
    assert_eq!(rotation.files().unwrap().stage(), Stage::Settled);
    rotation.abort_here().unwrap();
    assert!(!staged.dirs.pki.join("ca-next.key").exists() && staged.key("ca.key") == staged.old_key);
    let error = rotation.abort_here().unwrap_err().to_string();
    assert!(error.contains("no rotation is under way"), "{error}");
    fs::write(staged.dirs.pki.join("ca-next.key"), "half").unwrap();
    rotation.drop_half_made().unwrap();
    assert!(!staged.dirs.pki.join("ca-next.key").exists());
}

#[test]
fn a_machine_trusts_the_bundle_and_its_certificates_follow_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
    let authority = |name: &str| CertificateAuthority::ensure(&dirs.pki, name, "kubernetes").unwrap();
    let (old, new) = (authority("ca"), authority("ca-next"));
    let server = LeafRequest::server("kube-apiserver", vec!["a".to_owned()], Vec::new());
    old.ensure_leaf(&dirs.pki, "apiserver", &server).unwrap();
    let cluster = KubeconfigCluster {
        server: "https://127.0.0.1:1".to_owned(),
        authority_pem: old.certificate_pem().to_owned(),
        tls_server_name: None,
    };
    let user = KubeconfigUser::Embedded(old.issue(&LeafRequest::client("kubernetes-admin", &["a"])).unwrap());
    let admin = dir.path().join("admin.conf");
    write_kubeconfig(&admin, "c", "u", &cluster, &user).unwrap();
    let rotation = AuthorityRotation::new(dirs.clone(), false, &|_| {});
    let both = bundle_of(&[new.certificate_pem(), old.certificate_pem()]);
    fs::copy(dirs.pki.join("ca-next.key"), dirs.pki.join("ca.key")).unwrap();
    rotation.trust(&both).unwrap();
    rotation.reissue().unwrap();
    let apiserver = KnownCertificate::find("apiserver").unwrap().pem(&dirs).unwrap().unwrap();
    let shown = kubeconfig_certificate(&admin).unwrap().unwrap();
    for pem in [apiserver, shown] {
        assert_eq!(signer_in(new.certificate_pem(), &pem), Some(0));
    }
    assert_eq!(KubeconfigCluster::read(&admin).unwrap().authority_pem, both);
    let behind = rotation.refuse_without(vec!["n2".to_owned()]).unwrap_err().to_string();
    assert!(behind.contains("have not followed yet: n2"), "{behind}");
    AuthorityRotation::new(dirs, true, &|_| {}).refuse_without(vec!["n2".to_owned()]).unwrap();
}
