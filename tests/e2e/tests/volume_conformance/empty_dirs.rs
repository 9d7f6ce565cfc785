//! emptyDir volumes: each user, mode and medium, sharing between containers, and the ones that other volumes are made of.

use kedge_e2e::{BUSYBOX, Node, eventually};
use serde_json::{Value, json};

use super::{apply_pod, names, run, waiting};

const USERS: [(&str, Option<u32>); 2] = [("root", None), ("user", Some(1001))];
const MEDIA: [&str; 2] = ["default", "tmpfs"];

fn volumes() -> Vec<Value> {
    let mut all = Vec::new();
    for (user, _) in USERS {
        for medium in MEDIA {
            let source = if medium == "tmpfs" { json!({"medium": "Memory"}) } else { json!({}) };
            all.push(json!({"name": format!("{user}-{medium}"), "emptyDir": source}));
        }
    }
    all.push(json!({"name": "shared", "emptyDir": {}}));
    all
}

pub(super) fn start(node: &Node) {
    let volumes = volumes();
    let containers = USERS.iter().map(|(name, user)| waiting(name, *user, &names(&volumes)));
    apply_pod(node, "empty", json!({}), containers.collect(), volumes);
    wrapped(node, "wrapped", "text", 1);
}

pub(super) fn check(node: &Node) {
    node.ready("empty");
    for (user, _) in USERS {
        for medium in MEDIA {
            has_mode_and_medium(node, user, medium);
        }
    }
    // What one container writes, another one reads and changes.
    run(node, "empty", "user", "echo hello > /v/shared/file && busybox chmod 666 /v/shared/file");
    assert_eq!(run(node, "empty", "root", "cat /v/shared/file; echo more >> /v/shared/file"), "hello\n");
    assert_eq!(run(node, "empty", "user", "cat /v/shared/file"), "hello\nmore\n");
    node.ready("wrapped");
    let seen =
        run(node, "wrapped", "c", "cat /v/secret/data-1 /v/config-0/data-1; echo own > /v/empty/file; ls /v/empty");
    assert_eq!(seen, "value-1value-1file\n");
    assert_eq!(run(node, "wrapped", "c", "ls /v/secret"), "data-1\ndata-2\ndata-3\ndump.bin\n");
}

fn has_mode_and_medium(node: &Node, user: &str, medium: &str) {
    let dir = format!("/v/{user}-{medium}");
    let owner = if user == "root" { "0" } else { "1001" };
    assert_eq!(run(node, "empty", user, &format!("busybox stat -c %a {dir}")), "777\n", "{dir}");
    let files = "for m in 644 666 777; do umask 0; echo mount-tester new file > $m; busybox chmod $m $m; echo $(busybox stat -c '%a %u' $m) $(cat $m); done";
    let expected: String =
        ["644", "666", "777"].iter().map(|mode| format!("{mode} {owner} mount-tester new file\n")).collect();
    assert_eq!(run(node, "empty", user, &format!("cd {dir} && {files}")), expected, "{dir}");
    let type_ = run(
        node,
        "empty",
        user,
        &format!("while read a b c d; do test $b = {dir} && echo $c; done < /proc/mounts; true"),
    );
    assert_eq!(type_.trim() == "tmpfs", medium == "tmpfs", "{dir}: {type_}");
}

/// A pod with a secret, an empty directory and so many volumes of one ConfigMap.
fn wrapped(node: &Node, name: &str, config: &str, count: usize) {
    let mut volumes =
        vec![json!({"name": "secret", "secret": {"secretName": "text"}}), json!({"name": "empty", "emptyDir": {}})];
    volumes.extend((0..count).map(|index| {
        let config = if count == 1 { config.to_owned() } else { format!("{config}-{index}") };
        json!({"name": format!("config-{index}"), "configMap": {"name": config,
               "items": [{"key": "data-1", "path": "data-1"}]}})
    }));
    let container = waiting("c", None, &names(&volumes));
    apply_pod(node, name, json!({}), vec![container], volumes);
}

/// Pods with fifty ConfigMaps each, made at the same time, again and again.
pub(super) fn many_wrapped_volumes_do_not_race(node: &Node) {
    const VOLUMES: usize = 50;
    const PODS: usize = 5;
    let objects: Vec<Value> = (0..VOLUMES)
        .map(|index| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("racey-{index}")},
                   "data": {"data-1": "value-1"}})
        })
        .collect();
    node.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    for round in 0..3 {
        let pods: Vec<String> = (0..PODS).map(|pod| format!("racey-{round}-{pod}")).collect();
        for pod in &pods {
            wrapped(node, pod, "racey", VOLUMES);
        }
        for pod in &pods {
            let seen = node.ready(pod);
            assert_eq!(seen["spec"]["containers"][0]["image"], BUSYBOX);
            let seen = run(node, pod, "c", "cat /v/config-*/data-1");
            assert_eq!(seen, "value-1".repeat(VOLUMES), "{pod}");
        }
        let mut delete = vec!["delete", "pod", "--wait=false"];
        delete.extend(pods.iter().map(String::as_str));
        node.kubectl.run(&delete);
        for pod in &pods {
            eventually("the end of a pod", super::optional::LIVE, || match node.get("pod", pod) {
                Value::Null => Ok(()),
                seen => Err(seen["status"].to_string()),
            });
        }
    }
}
