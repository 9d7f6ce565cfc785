//! Images: what they bring and what pods put in its place, pulls and their policies, and images that are volumes.

use std::path::Path;
use std::time::Duration;

use kedge_e2e::{HostOptions, Node, REGISTRY_USER, Registry, container, eventually, script_spec};
use kedge_oci::ImageBuilder;

const ENTRY: &str = "localhost/entry:test";

fn load_entry(node: &Node) {
    let archive = node.host.file("entry.tar");
    let image = ImageBuilder::new(ENTRY).expect("the name is one").file("/bin/busybox", "/bin/busybox", 0o755);
    let image = image.entrypoint(["/bin/busybox", "echo", "entrypoint"]).cmd(["default", "arguments"]);
    image.write_to(&archive).expect("the image can be written");
    let loaded = node.host.kedge("image", &["load", archive.to_str().expect("paths of tests are text")]);
    assert!(loaded.ok, "{}", loaded.all());
}

#[test]
fn images_bring_commands_and_are_pulled_as_the_policy_says() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    load_entry(&node);
    commands(&node);
    let registry = Registry::start(node.host.namespace().expect("a node has a namespace"));
    policies(&node, &registry);
}

fn commands(node: &Node) {
    let cases = [
        ("blank", "", "entrypoint default arguments\n"),
        ("arguments", "    args: [override, arguments]\n", "entrypoint override arguments\n"),
        ("command", "    command: [/bin/busybox, echo, override]\n", "override\n"),
        ("both", "    command: [/bin/busybox, echo]\n    args: [override, arguments]\n", "override arguments\n"),
    ];
    for (name, more, _) in cases {
        let spec = format!("  restartPolicy: Never\n  containers:\n  - name: c\n    image: '{ENTRY}'\n{more}");
        node.pod(name, &spec);
    }
    for (name, _, expected) in cases {
        assert_eq!(node.output(name), expected, "{name}");
    }
}

fn puller(image: &str, policy: &str, more: &str) -> String {
    format!(
        "  restartPolicy: Never\n{more}  containers:\n  - {{name: c, image: '{image}', imagePullPolicy: {policy}, command: [/nothing]}}\n"
    )
}

/// What is pulled has no program in it: a start that fails for that reason shows that the image was there.
fn policies(node: &Node, registry: &Registry) {
    let image = registry.put("plain:v1", &[("/file", "x")]);
    let manifests = || registry.asked("/manifests/v1");
    node.pod("never", &puller(&image, "Never", ""));
    node.event(
        "never",
        "ErrImageNeverPull Container image \"localhost:5000/plain:v1\" is not present with pull policy of Never",
    );
    assert_eq!(manifests(), 0);
    node.pod("first", &puller(&image, "IfNotPresent", ""));
    node.event("first", "Pulled Successfully pulled image \"localhost:5000/plain:v1\" in ");
    let pulls = manifests();
    assert!(pulls > 0);
    node.pod("second", &puller(&image, "IfNotPresent", ""));
    node.event("second", "Pulled Container image \"localhost:5000/plain:v1\" already present on machine");
    assert_eq!(manifests(), pulls);
    node.pod("always", &puller(&image, "Always", ""));
    node.event("always", "Pulled Successfully pulled image \"localhost:5000/plain:v1\" in ");
    assert!(manifests() > pulls);

    let private = registry.put("private/data:v1", &[("/file", "x")]);
    node.pod("stranger", &puller(&private, "IfNotPresent", ""));
    node.event("stranger", "Failed Failed to pull image \"localhost:5000/private/data:v1\"");
    node.event("stranger", "Failed Error: ErrImagePull");
    node.event("stranger", "BackOff Back-off pulling image \"localhost:5000/private/data:v1\"");
    let (user, password) = REGISTRY_USER;
    let words = [format!("--docker-username={user}"), format!("--docker-password={password}")];
    let create =
        ["create", "secret", "docker-registry", "registry", "--docker-server=localhost:5000", &words[0], &words[1]];
    node.kubectl.run(&create);
    node.pod("reader", &puller(&private, "Always", "  imagePullSecrets: [{name: registry}]\n"));
    node.event("reader", "Pulled Successfully pulled image \"localhost:5000/private/data:v1\" in ");
}

fn mounted(image: &str, policy: &str, mounts: &str) -> (String, String) {
    let container = format!("    volumeMounts: [{mounts}]\n");
    (container, format!("  volumes: [{{name: volume, image: {{reference: '{image}', pullPolicy: {policy}}}}}]\n"))
}

fn views(node: &Node) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel tells");
    let ours = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    ours.filter(|point| Path::new(point).starts_with(node.host.data_dir()) && point.contains("kubernetes.io~image"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn images_are_volumes() {
    let Some(mut node) = Node::up(HostOptions::default()) else { return };
    let registry = Registry::start(node.host.namespace().expect("a node has a namespace"));
    let files =
        [("/data.json", "{\"file\": \"kitten.jpg\"}"), ("/etc/os-release", "tests\n"), ("/bin/run", "#!/bin/sh\n")];
    let image = registry.put("kitten:v1", &files);
    let sleep = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let both = "{name: volume, mountPath: /volume}, {name: volume, mountPath: /part, subPath: etc}, {name: volume, mountPath: /one.json, subPath: data.json}";
    let (container_yaml, pod_yaml) = mounted(&image, "Always", both);
    node.script("reader", sleep, &container_yaml, &pod_yaml);
    node.ready("reader");
    node.event("reader", "Pulled Successfully pulled image \"localhost:5000/kitten:v1\" in ");
    let reads = |node: &Node| {
        assert!(node.exec("reader", "cat /volume/data.json").contains("kitten.jpg"));
        assert_eq!(node.exec("reader", "cat /volume/etc/os-release /part/os-release"), "tests\ntests\n");
        assert!(node.exec("reader", "cat /one.json").contains("kitten.jpg"));
    };
    reads(&node);
    let refused = node.exec("reader", "touch /volume/new /part/new 2>&1 || true");
    assert_eq!(refused.matches("Read-only file system").count(), 2, "{refused}");
    assert!(node.exec("reader", "grep ' /volume ' /proc/mounts").contains("noexec"));

    // A part that is not there, an image that is not there, and one that nobody may pull.
    let (container_yaml, pod_yaml) = mounted(&image, "IfNotPresent", "{name: volume, mountPath: /v, subPath: none}");
    node.script("no-part", sleep, &container_yaml, &pod_yaml);
    node.event("no-part", "Failed Error: failed to mount \"none\" of image volume \"volume\"");
    let (container_yaml, pod_yaml) =
        mounted("localhost:5000/nothing:v1", "IfNotPresent", "{name: volume, mountPath: /v}");
    node.script("no-image", sleep, &container_yaml, &pod_yaml);
    node.event("no-image", "Failed Failed to pull image \"localhost:5000/nothing:v1\"");
    node.event("no-image", "Failed Error: ErrImagePull");
    node.until("no-image", "backing off", |seen| {
        container(seen, "c")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    let (container_yaml, pod_yaml) = mounted("localhost:5000/nothing:v1", "Never", "{name: volume, mountPath: /v}");
    node.script("never", sleep, &container_yaml, &pod_yaml);
    node.event(
        "never",
        "ErrImageNeverPull Container image \"localhost:5000/nothing:v1\" is not present with pull policy of Never",
    );
    // What no container sees holds nobody up.
    let spec = script_spec("echo done", "", &pod_yaml);
    node.pod("unseen", &spec);
    assert_eq!(node.output("unseen"), "done\n");

    // The node agent dies; container and image stay, and the container can start again.
    node.host.kill();
    node.host.start();
    node.ready("reader");
    reads(&node);
    node.kubectl.try_run(&["exec", "reader", "--", "kill", "1"]);
    let (container_yaml, pod_yaml) = mounted(&image, "IfNotPresent", "{name: volume, mountPath: /volume}");
    let again = format!("cat /volume/data.json; {sleep}");
    node.pod(
        "again",
        &script_spec(&again, &container_yaml, &pod_yaml).replace("restartPolicy: Never", "restartPolicy: Always"),
    );
    node.ready("again");
    node.exec("again", "kill 1");
    node.until("again", "its second run", |seen| {
        container(seen, "c")["restartCount"] == 1 && container(seen, "c")["ready"] == true
    });
    assert!(node.exec("again", "cat /volume/data.json").contains("kitten.jpg"));

    let pods = ["reader", "no-part", "no-image", "never", "unseen", "again"];
    node.kubectl.run(&[&["delete", "pod", "--timeout=60s"][..], &pods[..]].concat());
    assert_eq!(views(&node), Vec::<String>::new());
    let snapshotter =
        std::fs::read_to_string(node.host.data_dir().join("containerd/snapshotter")).expect("it was chosen");
    eventually("the views' end", Duration::from_secs(30), || {
        let socket = node.host.data_dir().join("containerd/containerd.sock");
        let socket = socket.to_str().expect("paths of tests are text");
        let listed = ["--address", socket, "-n", "k8s.io", "snapshots", "--snapshotter", &snapshotter, "ls"];
        let listed = node.host.run("ctr", &listed);
        if listed.ok && !listed.stdout.contains("kedge-image-volume") { Ok(()) } else { Err(listed.all()) }
    });
    assert!(node.kubectl.run(&["get", "pods", "-o", "name"]).is_empty());
    let pulled =
        node.kubectl.try_run(&["get", "events", "--field-selector", "involvedObject.name=reader", "-o", "yaml"]);
    assert!(pulled.stdout.contains(&format!("Pulling image \"{image}\"")), "{}", pulled.all());
}
