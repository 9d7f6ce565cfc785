//! hostPath volumes of every type, and sub-paths that lead where they must not.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use kedge_e2e::Node;
use serde_json::{Value, json};

use super::{apply_pod, names, run, waiting};

pub(super) fn start(node: &Node) {
    let root = node.host.file("places");
    std::fs::create_dir_all(root.join("dir/inside")).expect("a directory can be made");
    std::fs::write(root.join("file"), "text").expect("a file can be written");
    symlink("/etc", root.join("dir/out")).expect("a link can be made");
    symlink("..", root.join("dir/up")).expect("a link can be made");
    symlink("inside", root.join("dir/link")).expect("a link can be made");
    // The socket's file stays when the listener is gone.
    drop(UnixListener::bind(root.join("socket")).expect("a socket can be made"));
    let host_path = |name: &str, path: &str, type_: &str| {
        let path = if path.starts_with('/') { path.to_owned() } else { root.join(path).display().to_string() };
        json!({"name": name, "hostPath": {"path": path, "type": type_}})
    };
    let volumes = vec![
        host_path("unchecked", "dir", ""),
        host_path("directory", "dir", "Directory"),
        host_path("made", "new/deep", "DirectoryOrCreate"),
        host_path("file", "file", "File"),
        host_path("new-file", "new-file", "FileOrCreate"),
        host_path("socket", "socket", "Socket"),
        host_path("device", "/dev/null", "CharDevice"),
    ];
    let mut container = waiting("c", None, &names(&volumes));
    let mounts = container["volumeMounts"].as_array_mut().expect("a list");
    mounts.push(json!({"name": "unchecked", "mountPath": "/v/link", "subPath": "link"}));
    mounts.push(json!({"name": "unchecked", "mountPath": "/v/deep", "subPath": "some/new/dir"}));
    mounts.push(json!({"name": "unchecked", "mountPath": "/v/read-only", "subPath": "inside", "readOnly": true}));
    apply_pod(node, "places", json!({}), vec![container], volumes.clone());
    for (name, sub_path) in OUTSIDE {
        let mut container = waiting("c", None, &[]);
        container["volumeMounts"] = json!([{"name": "unchecked", "mountPath": "/v", "subPath": sub_path}]);
        apply_pod(node, name, json!({}), vec![container], vec![volumes[0].clone()]);
    }
}

/// Pods whose sub-paths lead out of their volume, or through a file.
const OUTSIDE: [(&str, &str); 4] =
    [("link-out", "out"), ("link-up", "up"), ("through-link", "out/x"), ("new-through-link", "up/new")];

pub(super) fn check(node: &Node) {
    node.ready("places");
    let is = |script: &str, expected: &str| assert_eq!(run(node, "places", "c", script).trim_end(), expected);
    is("test -d /v/directory/inside && test -d /v/made && test -S /v/socket && test -c /v/device && echo yes", "yes");
    is("cat /v/file; busybox stat -c %a-%s /v/new-file", "text644-0");
    is("busybox stat -c %a /v/made", "755");
    is("echo here > /v/link/file; cat /v/unchecked/inside/file", "here");
    is("test -d /v/unchecked/some/new/dir && echo yes", "yes");
    let refused = node.kubectl.try_run(&["exec", "places", "--", "sh", "-c", "echo x > /v/read-only/file"]);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.all());
    for (pod, _) in OUTSIDE {
        node.event(pod, "Failed Error: failed to prepare subPath for volumeMount \"unchecked\" of container \"c\"");
        let seen = node.get("pod", pod);
        let reason = &seen["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        assert_eq!(reason, "CreateContainerConfigError", "{seen}");
    }
    assert!(!node.host.file("places").join("new").join("new").exists());
    refused_by_the_api(node);
}

/// Steps back and absolute paths never reach a node.
fn refused_by_the_api(node: &Node) {
    for (sub_path, text) in [("../x", "must not contain '..'"), ("/x", "must be a relative path")] {
        let pod: Value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "refused"}, "spec": {
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub_path}]}],
            "volumes": [{"name": "v", "emptyDir": {}}]}});
        let answer = node.kubectl.try_run_with(&["apply", "-f", "-"], &pod.to_string());
        assert!(!answer.ok && answer.stderr.contains(text), "{}", answer.all());
    }
}
