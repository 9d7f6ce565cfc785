//! Clients that others wrote, each in its own language: they create, patch, apply, watch and exec on one node.
//!
//! The programs of other languages are in `clients/`; `KEDGE_CLIENTS` names the folder with what they need, which
//! `cargo xtask test` fetches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kedge_e2e::{BUSYBOX, Kubectl, Node, eventually};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use tokio::io::AsyncReadExt;

const PATIENCE: Duration = Duration::from_secs(60);

fn fetched() -> Option<PathBuf> {
    let folder = std::env::var_os("KEDGE_CLIENTS").map(PathBuf::from);
    if folder.is_none() {
        let why = "`KEDGE_CLIENTS` names no folder with clients; `cargo xtask test` fetches them";
        kedge_skip::skip("clients_of_other_languages_and_ages", why);
    }
    folder
}

#[test]
fn clients_of_other_languages_and_ages() {
    let Some(folder) = fetched() else { return };
    let Some(node) = Node::up(kedge_e2e::HostOptions::default()) else { return };
    node.kubectl.run(&["run", "box", "--image", BUSYBOX, "--command", "--", "sleep", "3600"]);
    node.ready("box");
    let old = folder.join("debian/usr/bin/kubectl").to_str().expect("paths of tests are text").to_owned();
    for program in [old, node.kubectl.program.clone()] {
        a_kubectl(&Kubectl { program, ..node.kubectl.clone() }, &node);
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let (kubeconfig, text) = (node.host.kubeconfig(), |path: &Path| path.to_str().expect("text").to_owned());
    let python = [text(&scripts.join("client.py")), text(&kubeconfig), "default".to_owned(), "box".to_owned()];
    a_program(&node, &text(&folder.join("python/bin/python")), &python);
    let (script, place) = (text(&scripts.join("client.mjs")), text(&folder.join("javascript")));
    a_program(&node, "node", &[script, place, text(&kubeconfig), "default".to_owned(), "box".to_owned()]);
    in_namespace(node.host.namespace().expect("nodes have one"), kube_rs(kubeconfig));
}

fn a_program(node: &Node, program: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = node.host.run(program, &arguments);
    assert!(output.ok && output.stdout.trim_end().ends_with("fine"), "{program}: {}", output.all());
}

fn a_kubectl(kubectl: &Kubectl, node: &Node) {
    let version = kubectl.run(&["version", "--client"]);
    let map =
        |color: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: old}}\ndata: {{color: {color}}}\n");
    assert!(kubectl.apply(&map("blue")).contains("created"), "{version}");
    let seen = node.host.file("seen.txt");
    let file = std::fs::File::create(&seen).expect("a file can be made");
    let mut watch = kubectl.command(&["get", "configmap", "old", "-w", "-o", "jsonpath={.data.color}{\"\\n\"}"]);
    let mut watch = watch.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn().expect("kubectl starts");
    let until = |color: &str| {
        eventually(&format!("{color} in the watch of {version}"), PATIENCE, || {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            if text.lines().any(|line| line == color) { Ok(()) } else { Err(text) }
        });
    };
    until("blue");
    assert!(kubectl.apply(&map("green")).contains("configured"), "{version}");
    until("green");
    let forced = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = kubectl.try_run_with(&forced, &map("red"));
    assert!(applied.ok, "{version}: {}", applied.all());
    until("red");
    kubectl.run(&["patch", "configmap", "old", "-p", "{\"data\": {\"color\": \"white\"}}"]);
    until("white");
    watch.kill().expect("our own child can be killed");
    watch.wait().expect("our own child can be waited for");
    assert_eq!(kubectl.run(&["exec", "box", "--", "echo", "hello"]), "hello\n", "{version}");
    kubectl.run(&["delete", "configmap", "old"]);
}

/// Runs a future on a thread in a network namespace.
fn in_namespace(namespace: &str, future: impl Future<Output = ()> + Send + 'static) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(future);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn kube_rs(kubeconfig: PathBuf) {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).expect("kedge wrote it");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.expect("it is whole")).expect("it is good");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let listed = maps.list(&ListParams::default()).await.expect("maps are listed");
    let (version, named) = (listed.metadata.resource_version, WatchParams::default().fields("metadata.name=from-rust"));
    let watch = maps.watch(&named, version.as_deref().unwrap_or("0")).await.expect("maps are watched");
    let data = |color: &str| Some(BTreeMap::from([("color".to_owned(), color.to_owned())]));
    let metadata = kube::api::ObjectMeta { name: Some("from-rust".to_owned()), ..Default::default() };
    let map = ConfigMap { metadata, data: data("blue"), ..ConfigMap::default() };
    maps.create(&PostParams::default(), &map).await.expect("it is made");
    let merge = Patch::Merge(json!({"data": {"color": "green"}}));
    let patched = maps.patch("from-rust", &PatchParams::default(), &merge).await.expect("it is patched");
    assert_eq!(patched.data, data("green"));
    let red =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-rust"}, "data": {"color": "red"}});
    let apply = PatchParams::apply("rust").force();
    let applied = maps.patch("from-rust", &apply, &Patch::Apply(red)).await.expect("it is applied");
    assert_eq!(applied.data, data("red"));
    maps.delete("from-rust", &DeleteParams::default()).await.expect("it is deleted");
    let color = |map: ConfigMap| map.data.unwrap_or_default().remove("color").unwrap_or_default();
    let seen: Vec<String> = watch
        .map_ok(|event| match event {
            WatchEvent::Added(map) => format!("added {}", color(map)),
            WatchEvent::Modified(map) => format!("modified {}", color(map)),
            WatchEvent::Deleted(map) => format!("deleted {}", color(map)),
            other => format!("{other:?}"),
        })
        .take(4)
        .try_collect()
        .await
        .expect("the watch goes on");
    assert_eq!(seen, ["added blue", "modified green", "modified red", "deleted red"]);
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut process =
        pods.exec("box", ["echo", "hello"], &AttachParams::default().stderr(false)).await.expect("it runs");
    let mut said = String::new();
    process.stdout().expect("it was asked for").read_to_string(&mut said).await.expect("it is read");
    process.join().await.expect("it ends");
    assert_eq!(said, "hello\n");
}
