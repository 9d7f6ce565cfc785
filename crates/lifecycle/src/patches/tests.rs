//! What a directory of patches does.

use std::sync::Mutex;

use super::*;
use crate::host::HostLayout;
use crate::manifests::{control_plane_pod, tests::facts};

fn read(files: &[(&str, &str)]) -> (Result<Patches, PatchesError>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let said = Mutex::new(Vec::new());
    let patches = Patches::read(Some(dir.path()), &|line| said.lock().unwrap().push(line.to_owned()));
    (patches, said.into_inner().unwrap())
}

fn scheduler() -> Value {
    control_plane_pod("kube-scheduler", &facts(), &HostLayout::default())
}

#[test]
fn the_three_kinds_of_patches_are_applied_in_order() {
    let (patches, said) = read(&[
        ("kube-scheduler0.yaml", "spec: {containers: [{name: kube-scheduler, resources: {requests: {cpu: 7m}}}]}\n"),
        ("kube-scheduler1+merge.yaml", "metadata: {annotations: {a: '1'}}\n---\nmetadata: {annotations: {a: '2'}}\n"),
        ("kube-scheduler2+json.json", r#"[{"op": "add", "path": "/metadata/annotations/b", "value": "3"}]"#),
        ("below/kube-scheduler3.yaml", "metadata: {labels: {c: '4'}}\n"),
        ("README.md", "of no use\n"),
        ("etcd.yaml", ""),
    ]);
    let told = Mutex::new(Vec::new());
    let pod = patches
        .unwrap()
        .apply_to_pod("kube-scheduler", scheduler(), &|line| told.lock().unwrap().push(line.to_owned()))
        .unwrap();
    assert_eq!(pod["metadata"]["annotations"], json!({"a": "2", "b": "3"}));
    assert_eq!(pod["metadata"]["labels"]["c"], "4");
    // A list that merges keeps what the patch does not name.
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "7m");
    assert_eq!(container["image"], scheduler()["spec"]["containers"][0]["image"]);
    assert!(said.contains(&"[patches] Ignored the following files: [README.md etcd.yaml]".to_owned()), "{said:?}");
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 5);
    assert!(told.iter().all(|line| line.ends_with("to target \"kube-scheduler\"")), "{told:?}");
}

#[test]
fn what_is_not_patched_stays() {
    let none = Patches::read(None, &|line| panic!("{line}")).unwrap();
    assert_eq!(none, Patches::default());
    let (patches, _) = read(&[("etcd.yaml", "metadata: {labels: {a: b}}\n")]);
    let patches = patches.unwrap();
    assert_eq!(patches.apply_to_pod("kube-scheduler", scheduler(), &|line| panic!("{line}")).unwrap(), scheduler());
    assert_eq!(patches.apply_to_pod("another", json!(1), &|line| panic!("{line}")).unwrap(), json!(1));
}

#[test]
fn the_kubelets_configuration_is_patched_as_a_whole() {
    let (patches, _) = read(&[(
        "kubeletconfiguration.yaml",
        "maxPods: 7\nclusterDNS: [192.0.2.1]\nauthentication: {anonymous: null}\n",
    )]);
    let before = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "clusterDNS": ["10.96.0.10"],
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
    });
    let after = patches.unwrap().apply(PatchTarget::KubeletConfiguration, before, &|_| {}).unwrap();
    assert_eq!((&after["maxPods"], &after["clusterDNS"]), (&json!(7), &json!(["192.0.2.1"])));
    assert_eq!(after["authentication"], json!({"webhook": {"enabled": true}}));
}

#[test]
fn patches_that_do_not_fit_are_named() {
    let check = |name: &str, text: &str, expected: &str| {
        let error = match read(&[(name, text)]).0 {
            Err(error) => error,
            Ok(patches) => patches.apply_to_pod("kube-scheduler", scheduler(), &|_| {}).unwrap_err(),
        };
        assert!(error.to_string().contains(expected), "{name}: {error}");
    };
    check("kube-scheduler+.yaml", "a: b\n", "kube-scheduler+.yaml: unknown or missing patch type after '+'");
    check("kube-scheduler.yaml", "{", "could not convert patch to JSON: kube-scheduler.yaml");
    check("kube-scheduler.yaml", "kind: Service\n", "is not a valid Pod object");
    check("kube-scheduler+merge.yaml", "spec: {containers: 3}\n", "to target \"kube-scheduler\"");
    check(
        "kube-scheduler+json.json",
        r#"[{"op": "replace", "path": "/no/such", "value": 1}]"#,
        "of type \"application/json-patch+json\"",
    );
    let missing = Patches::read(Some(Path::new("/nonexistent")), &|_| {}).unwrap_err();
    assert!(missing.to_string().starts_with("could not list patch files for path \"/nonexistent\""), "{missing}");
}
